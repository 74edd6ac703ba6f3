// What edgevoice needs of whisper.cpp's insides, and nothing else.
//
// The public interface of whisper.cpp scores one sequence, last token only. The batched decoder,
// its key-value cache with sequence numbers and the encoder window are internal, so
// whisper_core.cpp includes upstream's source file as it is and offers them here.
#pragma once

#include "edgevoice.h"
#include "vocab_trie.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct ggml_cgraph;
struct ggml_context;
struct ggml_tensor;
struct whisper_ahead;
struct whisper_context;
struct whisper_full_params;
struct whisper_state;
struct whisper_token_data;
struct whisper_vad_context;

namespace ev {

using Token = int32_t;

// What a model is loaded for, beside commands.
struct ModelUse {
    bool transcription = false;      // upstream's own decoder, which needs the words in its way
    const char *alignment = nullptr; // times of words: whose alignment heads, "tiny.en", ...;
                                     // "top": all heads of the highest layer
    const int32_t *heads = nullptr;  // in its place: pairs of a layer and a head
    size_t n_heads = 0;
    int32_t gpu = -1; // the device of gpus() that has the weights; -1: the processor
};

// Graphics devices that a backend compiled in has found, by upstream's names, each with the
// device's own behind it.
const std::vector<std::string> &gpus();
// What ggml was compiled for, as ev_kernels has it.
const std::string &kernels();

// Weights and vocabulary. Immutable after loading; shared by sessions.
class Model {
  public:
    // The file has passed ev_model_file_check. Returns null and says why when upstream refuses it
    // all the same, or the alignment is not of such a model.
    static std::shared_ptr<const Model> load(const char *path, const ModelUse &use,
                                             std::string &error);
    ~Model();
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    ev_model_info info() const;
    const float *mel_filters() const;
    int32_t n_vocab() const { return n_vocab_; }
    Token end_of_text() const { return end_of_text_; }
    Token no_speech() const { return no_speech_; }
    Token start_of_transcript() const { return start_of_transcript_; }
    ev_special special() const;
    // Start of transcript, language and task where the model has them, no timestamps; before that
    // `context` (UTF-8) as what was said before, its last tokens if it is long.
    std::vector<Token> prompt(int32_t language, const std::string &context) const;
    std::string_view bytes(Token token) const {
        return {bytes_.data() + begins_[token], begins_[token + 1] - begins_[token]};
    }
    // Of a token that is no text, such as "[_BEG_]"; empty unless loaded for transcription.
    const char *name(Token token) const;
    bool for_transcription() const { return for_transcription_; }
    // Whether a graphics device has the weights, where Decoder cannot read them.
    bool on_gpu() const;
    // The languages of its tokens: 0 of English-only models.
    int32_t n_languages() const;
    // Text as upstream's whisper_tokenize: words by kind of letter, each by its longest tokens.
    std::vector<Token> tokenize(const std::string &text) const;
    const VocabTrie &trie() const { return *trie_; }
    whisper_context *context() const { return context_; }
    // The same weights, for graphs that keep the attention of alignment heads; null without.
    whisper_context *aligning() const { return aligning_.get(); }

  private:
    Model();

    whisper_context *context_ = nullptr;
    std::unique_ptr<whisper_ahead[]> heads_; // of aligning_, if they are the caller's
    std::unique_ptr<whisper_context> aligning_;
    int32_t n_vocab_ = 0;
    Token end_of_text_ = 0;
    Token no_speech_ = 0;
    Token start_of_transcript_ = 0;
    bool for_transcription_ = false;
    std::string bytes_;            // of the text tokens, one after the other,
    std::vector<uint32_t> begins_; // where each begins, and the last one ends
    std::unique_ptr<VocabTrie> trie_;
};

// Encoder output and key-value cache of one recognition at a time.
//
// The decoder's graph is our own, over upstream's weights: a batch is a piece of a *tree* of
// tokens, each input naming the cache cell of the token before it, so that hypotheses share
// prefixes without copying and N-best lists are scored in one pass. It computes only the rows of
// the output matrix that are asked for (all of them are two thirds of a step's time), and it can
// leave out the audio: what remains is the internal language model.
class Decoder {
  public:
    // The first tokens of the vocabulary are its most frequent: byte pairs were merged in that
    // order. Their rows are one block, no gathering needed.
    static constexpr int32_t frequent_tokens = 2048;

    // Room for `cells` tokens of all sequences together, prompt included. Throws std::bad_alloc
    // when there is no memory for them or for the state.
    Decoder(std::shared_ptr<const Model> model, int32_t threads, int32_t cells);
    ~Decoder();
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;

    const Model &model() const { return *model_; }

    // Runs the encoder over a log-mel spectrogram: a row for each band, 2 * `audio_ctx` columns.
    // False when ggml fails, or when `stopped`, asked between its operations, says so.
    bool encode(const float *mel, int32_t audio_ctx, bool (*stopped)(void *) = nullptr,
                void *of = nullptr);

    struct Input {
        Token token;
        int32_t parent; // cell of the token before it, from an earlier batch or earlier in this
                        // one; -1: none, it begins a sequence
    };
    enum class Audio { heard, left_out };
    enum class Rows { all, some };

    // Runs the inputs in one batch; they take the cells next_cell(), next_cell() + 1, ... With
    // Rows::some, logits exist for the frequent tokens and for `extra` (each at most once).
    // False: ggml failed or the cache is full.
    bool run(const std::vector<Input> &inputs, Audio audio, Rows rows,
             const std::vector<Token> &extra);
    // Other rows for cells that were run before, with or without audio: only the output matrix is
    // computed. What was run with audio stays until the next run with audio, a rewind between, and
    // likewise without.
    bool look_again(const std::vector<int32_t> &cells, Audio audio, Rows rows,
                    const std::vector<Token> &extra);
    // Logits of input or cell i of the last call: n_columns() values. Column c < frequent_tokens
    // is token c; behind them come the extra tokens in their order, or with Rows::all the rest of
    // the vocabulary.
    const float *logits(size_t i) const { return logits_ + i * n_columns_; }
    size_t n_columns() const { return n_columns_; }

    int32_t next_cell() const { return next_cell_; }
    // What was run in a cell. Forgotten by rewind().
    const Input &at(int32_t cell) const { return cells_[cell]; }
    // Forgets all cells.
    void rewind() { next_cell_ = 0; }
    // How many cells there is memory for now; run() takes more when they are not enough.
    int32_t room() const;
    // Forgets all cells but these and what stands before them. They get other numbers: returned by
    // the old ones, -1 for what is forgotten. Only between runs with audio.
    std::vector<int32_t> keep_only(const std::vector<int32_t> &wanted);

  private:
    struct Output; // the output matrix at the end of a graph
    struct State;  // memory of upstream's types

    Output output(ggml_context *ctx, ggml_cgraph *graph, ggml_tensor *hidden, Rows rows,
                  const std::vector<Token> &extra) const;
    // Computes the graph and finds its logits. `fill` sets its other inputs, `keep` takes what
    // else is wanted of it.
    template <typename Fill, typename Keep>
    bool compute(ggml_cgraph *graph, const Output &output, const std::vector<Token> &extra,
                 const Fill &fill, const Keep &keep);
    void find_logits(const Output &output);
    // Room for so many cells. False: more were never to be. Throws std::bad_alloc.
    bool make_room(int32_t cells);
    std::vector<float> &hidden(Audio audio) { return hidden_[audio == Audio::heard ? 0 : 1]; }

    std::shared_ptr<const Model> model_;
    std::unique_ptr<State> state_;
    int32_t next_cell_ = 0;
    size_t n_columns_ = 0;
    std::vector<Input> cells_;
    std::vector<int32_t> positions_; // of each cell in its sequence
    std::vector<int32_t> values_;    // of the batch, for the graph
    const float *logits_ = nullptr;  // in the graph's memory, until the next graph, or in copied_
    std::vector<float> copied_;
    std::vector<float> mask_;
    std::vector<float> hidden_[2]; // the decoder's last state of each cell, with and without audio
};

// Upstream's own state, for what upstream decodes (whisper_full): one thread at a time.
class UpstreamState {
  public:
    // The model is for transcription. Throws std::bad_alloc when there is no memory.
    explicit UpstreamState(std::shared_ptr<const Model> model);
    ~UpstreamState();
    UpstreamState(const UpstreamState &) = delete;
    UpstreamState &operator=(const UpstreamState &) = delete;

    const Model &model() const { return *model_; }
    whisper_context *context() const { return model_->context(); }
    whisper_state *get() const { return state_; }
    // Upstream has freed it, as it does when there is no memory for more beams.
    void forget() { state_ = nullptr; }

    // Encoder positions, 20 ms each; 0: all.
    void set_audio_ctx(int32_t audio_ctx);
    // `stopped` is asked between the operations of a graph.
    void watch(bool (*stopped)(void *), void *of);
    // How loud each sample is, by which upstream sets the times of tokens.
    void set_energy(const float *samples, size_t n_samples);
    // Sets the times by alignment of the segments from `first` on, which are of one window of 30 s
    // of audio that ends at `end_cs`, while its encoder output is there; where they cannot be had
    // they stay unknown.
    void align(size_t first, int32_t language, int32_t threads, int64_t end_cs);
    void clear();
    // Whether the segments are what upstream would try again at a higher temperature: tokens of
    // less than so much log-probability in the mean, or of little variety at the end.
    bool doubtful(float log_probability, float entropy) const;
    void forget_logits();
    // What stands before each window: `carried` always, and then `before` and, with `keep`, what
    // was transcribed before, as far as there is room.
    void set_prompts(const std::vector<Token> &carried, const std::vector<Token> &before,
                     bool keep);
    // What stands before the next window: carried, and before.
    std::pair<std::vector<Token>, std::vector<Token>> prompts() const;

    // Beam search as OpenAI's decoder does it (whisper/decoding.py, BeamSearchDecoder), for a
    // window that upstream begins to decode greedily. Upstream's own beams are drawn, end each for
    // itself and know no patience.
    //
    // Room for so many texts. Throws std::bad_alloc when there is no memory; the state is gone.
    void make_room(int32_t beams);
    // The best text of the window, with its end of text, once `n_finished` have ended. To be called
    // when upstream has decoded what stands before it and asks for its first token. Empty if the
    // decoder fails or is stopped.
    std::vector<whisper_token_data> search(const whisper_full_params &params, int32_t n_finished);
    // Has upstream take token `at` of a text, by the logits it chooses from.
    void follow(const std::vector<whisper_token_data> &text, size_t at, float *logits);

    // How much of a window of so much audio its text takes, as far as its last time. `max_tokens`:
    // as of whisper_full.
    int64_t taken_cs(int64_t window_cs, int32_t max_tokens) const;

    struct Times {
        double mel = 0.0, encode = 0.0, prompt = 0.0, decode = 0.0, sample = 0.0; // ms
    };
    Times times() const; // since clear()

    // The spectrogram: `bands` rows of `columns` values, the last 30 s of them padding.
    struct Mel {
        const float *values;
        int32_t bands, columns;
    };
    Mel mel() const;
    // The encoder's output: a row of n_state values for each position.
    size_t n_state() const;
    std::vector<float> encoded() const;

  private:
    std::shared_ptr<const Model> model_;
    whisper_state *state_;
};

// The streaming voice activity detector.
class Vad {
  public:
    static std::unique_ptr<Vad> load(const char *path);
    ~Vad();
    Vad(const Vad &) = delete;
    Vad &operator=(const Vad &) = delete;

    static constexpr size_t window_samples = 512;
    // False when ggml fails.
    bool process(const float *samples, float &probability);
    void reset();

    // Where speech is, in hundredths of a second: from, to, from, to, ... As upstream's --vad.
    struct Cut {
        float threshold;
        int32_t min_speech_ms, min_silence_ms, pad_ms;
        float max_speech_s;
    };
    bool speech(const float *samples, size_t n_samples, const Cut &cut, std::vector<int64_t> &out);

  private:
    Vad() = default;
    whisper_vad_context *context_ = nullptr;
};

// whisper.cpp's number of a language code, -1 for an unknown one.
int32_t language_id(const char *code);
// The other way round: null when there is none.
const char *language_code(int32_t id);

// Has the allocator of this process keep little of what is freed, from now on.
void spare_memory();
// Gives back what it has kept.
void give_back_freed();

// Sends upstream's and ggml's log to `sink` from now on.
void redirect_log(void (*sink)(char level, const char *text));

} // namespace ev
