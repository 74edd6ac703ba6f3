#include "transcriber.h"

#include "guard.h"

#include "whisper.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <set>
#include <thread>

namespace ev {

namespace {

using Clock = std::chrono::steady_clock;

constexpr float never = -std::numeric_limits<float>::infinity();

// States of a grammar with their tokens that are kept from one transcription to the next: some
// kilobytes each, more inside long classes of characters.
constexpr size_t max_cached_states = 2'000;

// ggml and upstream make threads without asking whether they can: what they leave behind when they
// cannot ends the process. So ask first, for all at the same time.
void check_threads(int32_t threads) {
    if (threads <= 1)
        return;
    std::mutex mutex;
    std::condition_variable all;
    bool go = false;
    std::vector<std::thread> made;
    made.reserve(size_t(threads));
    const auto end = [&] {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            go = true;
        }
        all.notify_all();
        for (std::thread &thread : made)
            thread.join();
    };
    try {
        for (int32_t i = 0; i < threads; ++i) {
            made.emplace_back([&] {
                std::unique_lock<std::mutex> lock(mutex);
                all.wait(lock, [&] { return go; });
            });
        }
    } catch (...) {
        end();
        throw;
    }
    end();
}

// Positions of the encoder for so much audio, 0: all. With 2 s of silence behind it tiny.en writes
// words twice that it does not with 30 s, with 4 s it does not (docs/whisper.md). Where little is
// saved, what has to be heard twice (a tenth) costs more.
int32_t fitting_window(int64_t audio_cs, const ev_model_info &info) {
    constexpr int64_t cs_per_position = 2, silence_positions = 200, block = 16;
    const int64_t needed =
        (std::max<int64_t>(0, audio_cs) + cs_per_position - 1) / cs_per_position +
        silence_positions;
    const int64_t positions = (needed + block - 1) / block * block;
    return positions * 10 < int64_t(info.n_audio_ctx) * 9 ? int32_t(positions) : 0;
}

// As CTranslate2 has both (src/decoding_utils.cc): what was written in this window, timestamps
// included, becomes less likely, each token once, and no sequence of `n` tokens ends the same way
// twice.
void avoid_repetition(const std::vector<Token> &written, float penalty, size_t n, float *logits) {
    if (penalty != 1.0f) {
        const std::set<Token> once(written.begin(), written.end());
        for (const Token token : once)
            logits[token] =
                logits[token] < 0.0f ? logits[token] * penalty : logits[token] / penalty;
    }
    if (n == 0 || written.size() < n)
        return;
    const auto last = written.end() - ptrdiff_t(n - 1); // of which a sequence would be made
    for (auto at = written.begin(); at + ptrdiff_t(n) <= written.end(); ++at) {
        if (std::equal(last, written.end(), at))
            logits[at[ptrdiff_t(n - 1)]] = never;
    }
}

} // namespace

TokenFilter::TokenFilter(std::shared_ptr<const Model> model,
                         std::shared_ptr<const Automaton> grammar)
    : model_(std::move(model)), grammar_(std::move(grammar)), dfa_(grammar_) {}

void TokenFilter::walk(const VocabTrie::Node &node, int32_t state, std::vector<Token> &out) {
    if (node.token >= 0)
        out.push_back(node.token);
    const VocabTrie::Node *children = model_->trie().children(node);
    for (uint16_t i = 0; i < node.n_children; ++i) {
        const int32_t next = dfa_.step(state, children[i].byte);
        if (next != ExactDfa::dead)
            walk(children[i], next, out);
    }
}

void TokenFilter::apply(const Token *tokens, size_t n_tokens, float *logits, size_t n_logits) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (n_tokens == 0 && dfa_.size() > max_cached_states) {
        dfa_.clear();
        allowed_.clear();
    }
    int32_t state = dfa_.start();
    for (size_t i = 0; i < n_tokens && state != ExactDfa::dead; ++i) {
        if (tokens[i] >= model_->end_of_text())
            continue;
        for (const char byte : model_->bytes(tokens[i])) {
            if (state != ExactDfa::dead)
                state = dfa_.step(state, uint8_t(byte));
        }
    }
    may_.assign(n_logits, false);
    if (state != ExactDfa::dead) {
        if (size_t(state) >= allowed_.size())
            allowed_.resize(size_t(state) + 1);
        if (!allowed_[size_t(state)].known) {
            std::vector<Token> found;
            walk(model_->trie().root(), state, found);
            allowed_[size_t(state)] = {true, std::move(found)};
        }
        for (const Token token : allowed_[size_t(state)].tokens)
            may_[size_t(token)] = true;
    }
    if (state == ExactDfa::dead || dfa_.accepting(state))
        may_[size_t(model_->end_of_text())] = true;
    for (size_t i = 0; i < n_logits; ++i) {
        if (!may_[i])
            logits[i] = never;
    }
}

struct Transcriber::Run {
    Run(Transcriber &transcriber, const ev_transcription *chosen, std::atomic<bool> *cancel,
        int32_t timeout_ms)
        : self(transcriber), options(chosen), cancelled(cancel), has_deadline(timeout_ms > 0),
          deadline(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}

    Transcriber &self;
    const ev_transcription *options;
    std::atomic<bool> *cancelled; // null: none
    bool has_deadline;
    Clock::time_point deadline;

    std::atomic<bool> encoding{true}; // upstream takes an end of a graph well then, else not always
    std::atomic<int> ended{EV_OK};    // by a callback, and why
    std::string why;                  // it failed; under mutex
    std::mutex mutex;
    std::vector<std::vector<ev_text_token>> tokens;
    std::vector<ev_text_segment> segments;
    size_t n_given = 0;
    int32_t percent = 0;
    int32_t language = 0;
    int64_t end_cs = 0;                          // of what is transcribed
    bool refused = false;                        // upstream was told not to go on
    bool trying = false;                         // what is found may not be what is given
    const whisper_full_params *params = nullptr; // upstream's, for a search of ours
    bool searching = false, following = false;
    int n_tries = 0;                      // of this window
    std::vector<whisper_token_data> text; // of this window, that upstream is to write
    bool enough = false;                  // because there has been one window
    int n_windows = 0;

    ev_status check() const {
        if (const int status = ended.load(); status != EV_OK)
            return ev_status(status);
        if (cancelled && cancelled->load(std::memory_order_relaxed))
            return EV_ERR_CANCELLED;
        if (has_deadline && Clock::now() >= deadline)
            return EV_ERR_DEADLINE;
        return EV_OK;
    }
    void end(ev_status status, const char *text) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (ended.load() == EV_OK) {
            why = text;
            ended = status;
        }
    }

    // ---- what upstream calls: nothing may leave these but by return ----

    static bool stopped(void *of) { return static_cast<Run *>(of)->check() != EV_OK; }
    static bool stopped_in_encoder(void *of) {
        const Run *run = static_cast<Run *>(of);
        return run->encoding.load(std::memory_order_relaxed) && run->check() != EV_OK;
    }
    static bool before_encoder(whisper_context *, whisper_state *, void *of) {
        Run *run = static_cast<Run *>(of);
        run->encoding = true;
        run->refused = stopped(of);
        run->enough = !run->refused && run->options->one_window && run->n_windows > 0;
        ++run->n_windows;
        run->n_tries = 0;
        return !run->refused && !run->enough;
    }
    static void on_progress(whisper_context *, whisper_state *, int percent, void *of) {
        Run *run = static_cast<Run *>(of);
        if (run->trying)
            return;
        try {
            run->percent = std::clamp(percent, 0, 100);
            run->self.give_new_segments(*run);
        } catch (const std::exception &error) {
            run->end(EV_ERR_MEMORY, error.what());
        }
    }
    static void on_logits(whisper_context *context, whisper_state *,
                          const whisper_token_data *tokens, int n_tokens, float *logits, void *of) {
        Run *run = static_cast<Run *>(of);
        run->encoding = false;
        try {
            if (run->options->n_finished > 0 && !run->searching && n_tokens == 0)
                run->search();
            if (run->following && !run->searching)
                run->self.state_->follow(run->text, size_t(n_tokens), logits);
            else
                run->filter(tokens, size_t(n_tokens), logits, size_t(whisper_n_vocab(context)));
        } catch (const std::length_error &error) {
            run->end(EV_ERR_GRAMMAR, error.what());
        } catch (const std::exception &error) {
            run->end(EV_ERR_MEMORY, error.what());
        }
    }

    // Before the first token of a try: only the first is at the temperature at which beams are
    // followed.
    void search() {
        following = n_tries++ == 0;
        if (!following)
            return;
        searching = true;
        text = self.state_->search(*params, options->n_finished);
        searching = false;
        if (!text.empty())
            return;
        following = false;
        if (check() == EV_OK)
            end(EV_ERR_INFERENCE, "the decoder failed; see the log");
    }

    void filter(const whisper_token_data *tokens, size_t n_tokens, float *logits, size_t n) {
        for (size_t i = 0; i < options->n_suppress; ++i)
            logits[options->suppress[i]] = never;
        const bool may_repeat =
            options->repetition_penalty == 1.0f && options->no_repeat_ngram == 0;
        if (!self.filter_ && !options->on_logits && options->n_suppress == 0 && may_repeat)
            return;
        std::vector<Token> ids(n_tokens);
        for (size_t i = 0; i < n_tokens; ++i)
            ids[i] = tokens[i].id;
        avoid_repetition(ids, options->repetition_penalty, size_t(options->no_repeat_ngram),
                         logits);
        if (options->on_logits) {
            if (options->on_logits(options->of, ids.data(), int32_t(n_tokens), logits,
                                   int32_t(n)) != 0)
                end(EV_ERR_CANCELLED, "");
            for (size_t i = 0; i < n; ++i) // what is no number counts as never
                logits[i] = std::isfinite(logits[i]) ? logits[i] : never;
        }
        if (self.filter_)
            self.filter_->apply(ids.data(), n_tokens, logits, n);
        // Upstream divides by the sum of what is left.
        if (std::none_of(logits, logits + n, [](float value) { return value > never; }))
            logits[size_t(self.model_->end_of_text())] = 0.0f;
    }
};

namespace {

// Has graphs ask whether to stop, for as long as it lives, however that ends.
class Watch {
  public:
    Watch(UpstreamState &state, bool (*stopped)(void *), void *of) : state_(state) {
        state_.watch(stopped, of);
    }
    ~Watch() {
        if (state_.get() != nullptr)
            state_.watch(nullptr, nullptr);
    }
    Watch(const Watch &) = delete;
    Watch &operator=(const Watch &) = delete;

  private:
    UpstreamState &state_;
};

} // namespace

Transcriber::Transcriber(std::shared_ptr<const Model> model)
    : model_(std::move(model)), state_(std::make_unique<UpstreamState>(model_)) {}

UpstreamState &Transcriber::state() {
    if (state_->get() == nullptr)
        state_ = std::make_unique<UpstreamState>(model_);
    return *state_;
}

void Transcriber::give_new_segments(Run &run) {
    whisper_context *context = model_->context();
    whisper_state *state = state_->get();
    const size_t n = size_t(whisper_full_n_segments_from_state(state));
    if (run.options->token_times)
        state_->align(run.n_given, run.language, run.options->threads, run.end_cs);
    run.tokens.clear();
    run.segments.clear();
    run.tokens.reserve(n - run.n_given); // segments point into them
    for (size_t at = run.n_given; at < n; ++at) {
        const int i = int(at);
        std::vector<ev_text_token> &tokens = run.tokens.emplace_back();
        const int n_tokens = whisper_full_n_tokens_from_state(state, i);
        for (int j = 0; j < n_tokens; ++j) {
            const whisper_token_data data = whisper_full_get_token_data_from_state(state, i, j);
            const bool times = run.options->token_times != 0;
            tokens.push_back({data.id, whisper_token_to_str(context, data.id), data.p, data.plog,
                              times ? data.t0 : -1, times ? data.t1 : -1, data.t_dtw});
        }
        run.segments.push_back({whisper_full_get_segment_text_from_state(state, i),
                                whisper_full_get_segment_t0_from_state(state, i),
                                whisper_full_get_segment_t1_from_state(state, i),
                                whisper_full_get_segment_no_speech_prob_from_state(state, i),
                                whisper_full_get_segment_speaker_turn_next_from_state(state, i),
                                run.language, tokens.data(), int32_t(tokens.size())});
    }
    run.n_given = n;
    if (run.options->on_segments(run.options->of, run.percent, run.segments.data(),
                                 int32_t(run.segments.size())) != 0)
        run.end(EV_ERR_CANCELLED, "");
}

ev_status Transcriber::languages(Run &run, int32_t threads, std::vector<float> &probabilities) {
    std::vector<float> all(size_t(whisper_lang_max_id()) + 1);
    run.encoding = true;
    const int found = whisper_lang_auto_detect_with_state(model_->context(), state_->get(), 0,
                                                          threads, all.data());
    if (const ev_status status = run.check(); status != EV_OK)
        return status;
    if (found < 0)
        return fail(EV_ERR_INFERENCE, "the language could not be detected; see the log");
    // Upstream looks at one language more than older models have.
    all.resize(size_t(model_->n_languages()));
    float sum = 0.0f;
    for (const float value : all)
        sum += value;
    for (float &value : all)
        value /= sum;
    probabilities = std::move(all);
    return EV_OK;
}

ev_status Transcriber::detect(const float *samples, size_t n_samples, int32_t threads,
                              std::atomic<bool> *cancelled, std::vector<float> &probabilities) {
    check_threads(threads);
    Run run(*this, nullptr, cancelled, 0);
    compute_mel(samples, n_samples, threads);
    state_->set_audio_ctx(0);
    n_decoded_ = 0;
    const Watch watch(*state_, Run::stopped_in_encoder, &run);
    const ev_status status = languages(run, threads, probabilities);
    return status == EV_ERR_CANCELLED ? fail(status, "it was cancelled") : status;
}

ev_status Transcriber::run(const float *samples, size_t n_samples, const ev_transcription &options,
                           const std::shared_ptr<const Automaton> &grammar,
                           std::atomic<bool> *cancelled, ev_transcribed &out) {
    check_threads(options.threads);
    Run run(*this, &options, cancelled, options.timeout_ms);
    if (!grammar)
        filter_.reset();
    else if (!filter_ || filter_->grammar() != grammar.get())
        filter_ = std::make_unique<TokenFilter>(model_, grammar);

    state().clear();
    n_decoded_ = 0;
    compute_mel(samples, n_samples, options.threads);
    if (options.token_times)
        state_->set_energy(samples, n_samples);
    const int64_t all_cs = int64_t(n_samples) / 160;
    run.end_cs = options.duration_cs == 0
                     ? all_cs
                     : std::min(all_cs, int64_t(options.start_cs) + options.duration_cs);
    const int32_t fitting =
        options.fit_window ? fitting_window(run.end_cs - options.start_cs, model_->info()) : 0;
    state_->set_audio_ctx(fitting > 0 ? fitting : options.audio_ctx);
    const Watch watch(*state_, Run::stopped_in_encoder, &run);

    const auto results = [&](ev_status status) {
        const UpstreamState::Times times = state_->get() ? state_->times() : UpstreamState::Times();
        out.mel_ms = times.mel;
        out.encode_ms = times.encode;
        out.prompt_ms = times.prompt;
        out.decode_ms = times.decode;
        out.sample_ms = times.sample;
        if (status != EV_ERR_CANCELLED && status != EV_ERR_DEADLINE)
            return status == EV_OK ? EV_OK : fail(status, run.why);
        out.aborted = status;
        return EV_OK;
    };

    const bool multilingual = model_->n_languages() > 0;
    out.language = multilingual ? options.language : 0;
    if (out.language < 0) {
        const Clock::time_point start = Clock::now();
        const ev_status status = languages(run, options.threads, probabilities_);
        if (status != EV_OK)
            return run.check() != EV_OK ? results(status) : status;
        out.language_probabilities = probabilities_.data();
        out.language = int32_t(std::max_element(probabilities_.begin(), probabilities_.end()) -
                               probabilities_.begin());
        out.language_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }

    run.language = out.language;
    whisper_full_params params = whisper_full_default_params(
        options.beam > 1 && options.n_finished == 0 ? WHISPER_SAMPLING_BEAM_SEARCH
                                                    : WHISPER_SAMPLING_GREEDY);
    params.print_progress = params.print_timestamps = false;
    params.n_threads = options.threads;
    params.language = language_code(out.language);
    params.translate = options.translate;
    params.beam_search.beam_size = options.beam;
    params.greedy.best_of = options.best_of;
    params.temperature = options.temperature;
    params.temperature_inc = options.temperature_step;
    params.entropy_thold = options.entropy_threshold;
    params.logprob_thold = options.log_probability_threshold;
    params.no_speech_thold = options.no_speech_threshold;
    params.length_penalty = options.length_penalty;
    // Upstream has room for one carried text, which stays when a later call carries another.
    const std::vector<Token> prompt(options.prompt, options.prompt + options.n_prompt);
    std::vector<Token> carried(options.hotwords, options.hotwords + options.n_hotwords);
    if (options.carry_prompt) {
        const size_t room = size_t(std::max(0, options.max_context - 1)) - carried.size();
        carried.insert(carried.end(), prompt.end() - ptrdiff_t(std::min(prompt.size(), room)),
                       prompt.end());
    }
    state_->set_prompts(carried, options.carry_prompt ? std::vector<Token>() : prompt,
                        options.context);
    params.carry_initial_prompt = !carried.empty();
    params.no_context = false;
    params.n_max_text_ctx = options.max_context;
    params.offset_ms = options.start_cs * 10;
    params.duration_ms = options.duration_cs * 10;
    params.no_timestamps = !options.timestamps;
    params.single_segment = options.single_segment;
    params.token_timestamps = options.token_times;
    params.thold_pt = options.token_threshold;
    params.thold_ptsum = options.token_sum_threshold;
    params.max_len = options.max_segment_length;
    params.split_on_word = options.split_on_word;
    params.max_tokens = options.max_tokens;
    params.audio_ctx = options.audio_ctx;
    params.max_initial_ts = options.max_initial_timestamp_s;
    params.suppress_blank = options.suppress_blank;
    params.suppress_nst = options.suppress_non_speech;
    params.print_special = options.special_tokens;
    params.tdrz_enable = options.speaker_turns;
    params.abort_callback = Run::stopped;
    params.encoder_begin_callback = Run::before_encoder;
    params.progress_callback = Run::on_progress;
    params.logits_filter_callback = Run::on_logits;
    params.abort_callback_user_data = params.encoder_begin_callback_user_data =
        params.progress_callback_user_data = params.logits_filter_callback_user_data = &run;

    if (options.n_finished > 0)
        state_->make_room(options.beam);
    const int code = transcribe(run, params, fitting);
    if (code == -7) { // upstream has freed the state, and there was no memory
        state_->forget();
        return fail(EV_ERR_MEMORY, "out of memory for " + std::to_string(options.beam) + " beams");
    }
    run.encoding = false; // what follows is run to its end
    has_encoded_ = false;
    const bool whole = code == 0 && !run.refused && run.ended.load() == EV_OK;
    const ev_status status = whole ? EV_OK : run.check();
    if (code != 0 && status == EV_OK) {
        return fail(EV_ERR_INFERENCE,
                    "whisper.cpp ended with " + std::to_string(code) + "; see the log");
    }
    if (whole)
        run.percent = 100;
    const int64_t window_cs = std::min<int64_t>(run.end_cs - options.start_cs, 3000);
    const bool by_times = options.timestamps && !options.single_segment;
    out.next_cs =
        options.start_cs + (by_times ? state_->taken_cs(window_cs, options.max_tokens) : window_cs);
    give_new_segments(run);
    return results(status);
}

int Transcriber::transcribe(Run &run, const whisper_full_params &params, int32_t fitting) {
    // The spectrogram and the energy are there: without samples upstream takes them.
    const auto full = [&](const whisper_full_params &with) {
        run.params = &with;
        return whisper_full_with_state(model_->context(), state_->get(), with, nullptr, 0);
    };
    if (fitting == 0)
        return full(params);
    const auto [carried, before] = state_->prompts();
    whisper_full_params once = params;
    once.audio_ctx = fitting;
    once.temperature_inc = 0.0f;
    run.trying = true;
    const int code = full(once);
    run.trying = false;
    if (code != 0 || run.check() != EV_OK ||
        !state_->doubtful(params.logprob_thold, params.entropy_thold))
        return code;
    run.n_windows = 0;
    state_->set_prompts(carried, before, false);
    state_->forget_logits();
    return full(params);
}

void Transcriber::compute_mel(const float *samples, size_t n_samples, int32_t threads) {
    // Fewer than this upstream reads past the end.
    std::vector<float> padded;
    constexpr size_t least = 400;
    if (n_samples < least) {
        padded.assign(samples, samples + n_samples);
        padded.resize(least);
        samples = padded.data();
        n_samples = least;
    }
    if (whisper_pcm_to_mel_with_state(model_->context(), state().get(), samples, int(n_samples),
                                      threads) != 0)
        throw std::runtime_error("whisper.cpp could not compute the spectrogram; see the log");
    has_mel_ = true;
    has_encoded_ = false;
}

void Transcriber::set_mel(const float *values, size_t columns) {
    if (whisper_set_mel_with_state(model_->context(), state().get(), values, int(columns),
                                   model_->info().n_mels) != 0)
        throw std::runtime_error("whisper.cpp did not take the spectrogram; see the log");
    has_mel_ = true;
    has_encoded_ = false;
}

ev_status Transcriber::encode(size_t column, int32_t threads, const float *&values,
                              size_t &n_positions, size_t &n_state) {
    if (!has_mel_ || state_->get() == nullptr) // it is gone when there was no memory for beams
        return fail(EV_ERR_ARGUMENT, "there is no spectrogram to encode");
    const size_t n_columns = size_t(state_->mel().columns);
    if (column >= n_columns) {
        return fail(EV_ERR_ARGUMENT, "the spectrogram has columns 0 to " +
                                         std::to_string(n_columns - 1) + ", got " +
                                         std::to_string(column));
    }
    check_threads(threads);
    state_->set_audio_ctx(0);
    if (whisper_encode_with_state(model_->context(), state_->get(), int(column), threads) != 0)
        return fail(EV_ERR_INFERENCE, "the encoder failed; see the log");
    has_encoded_ = true;
    n_decoded_ = 0;
    encoded_ = state_->encoded();
    values = encoded_.data();
    n_state = state_->n_state();
    n_positions = encoded_.size() / n_state;
    return EV_OK;
}

ev_status Transcriber::decode(const Token *tokens, size_t n_tokens, size_t n_past, int32_t threads,
                              const float *&logits) {
    if (!has_encoded_)
        return fail(EV_ERR_ARGUMENT, "there is nothing encoded to decode");
    if (n_past > n_decoded_) {
        return fail(EV_ERR_ARGUMENT, "n_past must be at most " + std::to_string(n_decoded_) +
                                         ", the tokens decoded so far, got " +
                                         std::to_string(n_past));
    }
    check_threads(threads);
    if (whisper_decode_with_state(model_->context(), state_->get(), tokens, int(n_tokens),
                                  int(n_past), threads) != 0)
        return fail(EV_ERR_INFERENCE, "the decoder failed; see the log");
    n_decoded_ = n_past + n_tokens;
    // Upstream leaves a row for each token and fills the last.
    logits =
        whisper_get_logits_from_state(state_->get()) + (n_tokens - 1) * size_t(model_->n_vocab());
    return EV_OK;
}

} // namespace ev
