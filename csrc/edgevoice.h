// The C interface of edgevoice's native core: Whisper under a hard grammar, and Silero VAD.
//
// cffi reads this file as its declarations (lines that start with '#' are dropped first), so it
// holds plain C99 only. Conventions:
//   - every fallible function returns ev_status; the text of the last failure on this thread is
//     ev_last_error();
//   - out-parameters come last and are written on EV_OK only, unless said otherwise;
//   - a NULL or closed handle is a programmer error: the Python binding never passes one;
//   - nothing here throws, and no input that passes the checks described makes whisper.cpp abort.
#ifndef EDGEVOICE_H
#define EDGEVOICE_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum ev_status {
    EV_OK = 0,
    EV_ERR_ARGUMENT = 1,  // a parameter outside its documented range
    EV_ERR_FILE = 2,      // a file cannot be read
    EV_ERR_MODEL = 3,     // a file that is no usable model
    EV_ERR_MEMORY = 4,    // allocation failed
    EV_ERR_GRAMMAR = 5,   // automaton tables that contradict themselves, or too deep a nesting
    EV_ERR_AUDIO = 6,     // no samples, too many, or too loud to be finite
    EV_ERR_INFERENCE = 7, // whisper.cpp or ggml reported a failure
    EV_ERR_CANCELLED = 8, // ev_session_cancel was called
    EV_ERR_DEADLINE = 9,  // time ran out between two steps
    EV_ERR_INTERNAL = 10, // a C++ exception that should not happen
    EV_STATUS_COUNT = 11
} ev_status;

// Text of the last failure on this thread, never NULL, valid until the next call on this thread.
const char *ev_last_error(void);

// Version of whisper.cpp compiled in, e.g. "1.8.5", and the kernels ggml was built with, e.g.
// "AVX2 = 1 | FMA = 1"; at the end of those each backend compiled in beside the processor's, with
// the number of devices that it has found: "DEVICES : BLAS = 1 | VULKAN = 0 |". Static storage.
const char *ev_whisper_version(void);
const char *ev_kernels(void);
// Name of the graphics device number `index` from 0 on that transcribers can compute on, e.g.
// "Vulkan0: V3D 4.2"; NULL when there are not so many. Static storage.
const char *ev_gpu(int32_t index);

// Moves up to `capacity` - 1 bytes of the engine's own log (whisper.cpp, ggml; whole lines, each
// "LEVEL text\n" with LEVEL one of D I W E) into `buffer`, zero-terminated, and forgets them.
// Returns the number of bytes written; 0 also when `capacity` is less than the next line. The log
// keeps the last 64 KiB. Thread-safe.
size_t ev_log_take(char *buffer, size_t capacity);

// Has the allocator of this process keep little of what is freed, from now on: for a service that
// shares a small machine. Thread-safe.
void ev_memory_spare(void);
// Gives back to the system what the allocator has kept. Thread-safe.
void ev_memory_give_back(void);

// ---- model: weights and vocabulary; immutable, may serve many sessions ----

typedef struct ev_model ev_model;

typedef struct ev_model_info {
    int32_t n_vocab;
    int32_t n_mels;        // bands of the spectrogram
    int32_t n_audio_ctx;   // encoder positions, 20 ms each
    int32_t n_text_ctx;    // longest token sequence
    int32_t n_audio_layer; // 4 tiny, 6 base, 12 small, 24 medium, 32 large
    int32_t file_type;     // ggml ftype of the matrices: 1 f16, 7 q8_0, ...
    int32_t multilingual;  // 0 or 1
    int32_t n_text_layer;
    int32_t n_state; // width of encoder and decoder
} ev_model_info;

// Checks the whole structure of a ggml Whisper file (header, sizes, every tensor) and then loads
// it. Nothing that fails the check reaches whisper.cpp. `*out` must be freed with ev_model_free.
ev_status ev_model_open(const char *path, ev_model **out);
void ev_model_info_get(const ev_model *model, ev_model_info *out);
// The mel filter bank of the file: n_mels rows of 201 weights, one for each 40 Hz from 0 to 8 kHz.
// Valid while the model is.
const float *ev_model_mel_filters(const ev_model *model);
// Writes the checked f16 or f32 model `input` to `output` with quantised matrices. `file_type`:
// ggml's number, 2 q4_0, 3 q4_1, 8 q5_0, 9 q5_1, 7 q8_0, 10 to 14 q2_k to q6_k. A failure may leave
// a partial output.
ev_status ev_model_quantize(const char *input, const char *output, int32_t file_type);
// As ev_model_open, for a transcriber, too, which takes 10 MB more. `alignment`: NULL, or the name
// of the model whose alignment heads tell when words were said ("tiny.en", ..., "large-v3-turbo"),
// or "top": all heads of the highest layer. In its place `heads`, pairs of a layer and a head from
// 0 on, if n_heads is not 0. Each takes 21 MB while words are aligned; upstream
// knows up to 23 of a model. `gpu`: the number of the graphics device that computes, -1 for the
// processor; with one, the model serves no session, whose decoder is the processor's.
#define EV_MAX_ALIGNMENT_HEADS 32
ev_status ev_model_open_for_transcription(const char *path, const char *alignment,
                                          const int32_t *heads, size_t n_heads, int32_t gpu,
                                          ev_model **out);
// Another handle of the same model, with a life of its own.
ev_status ev_model_share(const ev_model *model, ev_model **out);
// Releases the caller's hold; the weights stay while a session uses them.
void ev_model_free(ev_model *model);
// -1 when whisper.cpp does not know the language code, else its number (0 is "en").
int32_t ev_language_id(const char *code);
// NULL when there is no such number. Static storage.
const char *ev_language_code(int32_t id);
// How many languages the model tells apart: numbers below that; 0 for English only.
int32_t ev_model_languages(const ev_model *model);
// Text as tokens: writes up to `capacity` and always the number there are.
ev_status ev_model_tokenize(const ev_model *model, const char *text, size_t length, int32_t *tokens,
                            size_t capacity, size_t *n_tokens);
// The bytes of a token; of special ones a name, such as "[_BEG_]", if the model was opened for
// transcription. Valid while the model is.
ev_status ev_model_token(const ev_model *model, int32_t token, const char **bytes, size_t *size);
typedef struct ev_special {
    int32_t end_of_text, start, translate, transcribe, solm, previous, no_speech, no_timestamps,
        first_timestamp;
} ev_special;
void ev_model_special(const ev_model *model, ev_special *out);

// ---- grammar: the automaton of all sentences; immutable, may serve many sessions ----

typedef struct ev_grammar ev_grammar;

// Arc kinds of the recursive transition network that grammar.py compiles.
typedef enum ev_arc {
    EV_ARC_BYTE = 0,    // value: a byte, ASCII letters in lower case (both cases match); above it,
                        // times 256, another byte that matches too (0: none), for letters whose
                        // cases differ in their last UTF-8 byte
    EV_ARC_GLUE = 1,    // as BYTE, and a pending word separator may be left out before it ("50%")
    EV_ARC_EPSILON = 2, // value unused
    EV_ARC_SEPARATOR = 3, // a word boundary: space, hyphen or comma, written before the next byte;
                          // value: 0, or a network that may be run here, of words to skip
    EV_ARC_CALL = 4,      // value: first node of the network to run before going on at `target`
    EV_ARC_RETURN = 5,    // end of a called network; target unused
    EV_ARC_LABEL = 6,     // value: a label for ev_grammar_match
    EV_ARC_ACCEPT = 7,    // end of a sentence; value: which block of the grammar; target unused
    EV_ARC_RANGE = 8,     // free text: any byte from the low eight bits of value up to the next
                          // eight, upper and lower case apart; not where a separator is pending
    EV_ARC_KINDS = 9
} ev_arc;

// `arcs` holds n_arcs triples (kind, value, target); node i owns arcs first_arc[i] up to
// first_arc[i + 1]; first_arc has n_nodes + 1 entries; node 0 is the start. Both are copied.
ev_status ev_grammar_open(const uint32_t *arcs, size_t n_arcs, const uint32_t *first_arc,
                          size_t n_nodes, ev_grammar **out);
void ev_grammar_free(ev_grammar *grammar);

typedef struct ev_label {
    int32_t path;     // which reading of the text, 0 first
    int32_t label;    // a LABEL value, or the ACCEPT value when `accept` is 1
    int32_t position; // bytes of text consumed when it was passed
    int32_t accept;   // 1 for the last entry of a path
} ev_label;

// The readings of a text, at most one for each ACCEPT value, in the order of the grammar. Of two
// readings the one with fewer free texts (calls of a node with RANGE arcs) is better, then the one
// with fewer bytes in them, then the one that skips words at fewer places; only the best are
// returned. Writes up to `capacity` labels and always the number there are; zero labels: not in the
// grammar.
ev_status ev_grammar_match(const ev_grammar *grammar, const char *text, size_t length,
                           ev_label *labels, size_t capacity, size_t *n_labels);

// Whether more words of the grammar, other than words to skip, can follow a text, which need not be
// a sentence itself; a text that ends with punctuation, or does not begin any sentence: 0.
ev_status ev_grammar_can_go_on(const ev_grammar *grammar, const char *text, size_t length,
                               int32_t *can_go_on);

// ---- what a grammar says, for those who write it; text is plain here: lower case, one space
// between words, no punctuation after them ----

typedef struct ev_sentences ev_sentences;

// A deterministic automaton over bytes without cycles, as small as can be. State 0 is the start;
// edges lead to higher numbers. Valid while the ev_sentences is.
typedef struct ev_sentence_graph {
    int32_t complete; // 0: the effort did not suffice, sentences are missing, long ones first
    size_t n_states;
    const uint32_t *first_edge;   // edges of state i: first_edge[i] up to first_edge[i + 1]
    const uint8_t *bytes;         // of each edge, ascending within a state
    const uint32_t *targets;      // of each edge
    const uint32_t *first_accept; // accepts of state i: first_accept[i] up to first_accept[i + 1]
    const uint32_t *accepts;      // ACCEPT values of the sentences that end there, ascending
} ev_sentence_graph;

// All sentences, without words to skip. `is_free` has n_free entries: with is_free[v] != 0, ACCEPT
// value v is of sentences with RANGE arcs, which have no end; they are left out, but where another
// sentence is one of them, too, it has the value v as well. `effort`: configurations looked at,
// some 80 bytes and 1 us each. `*out` must be freed with ev_sentences_free.
ev_status ev_grammar_sentences(const ev_grammar *grammar, const uint8_t *is_free, size_t n_free,
                               size_t effort, ev_sentences **out);
void ev_sentences_get(const ev_sentences *sentences, ev_sentence_graph *out);
void ev_sentences_free(ev_sentences *sentences);

typedef struct ev_ahead {
    size_t reached; // bytes of the text, whole words, that begin a sentence
    size_t size;    // bytes written to `words`
    int32_t more;   // 1: there are more words than asked for
} ev_ahead;

// What can follow the part of a text that begins a sentence: at most `most` words, each followed by
// "\n" in `words`, which has room for 65 bytes each. `calls`: n_calls first nodes of networks,
// ascending, which are named in place of the words they begin with: called[i] is 1 or 0.
ev_status ev_grammar_ahead(const ev_grammar *grammar, const char *text, size_t length,
                           const uint32_t *calls, size_t n_calls, size_t most, char *words,
                           uint8_t *called, ev_ahead *out);

// How many tokens of the model the decoder may go on with after a text, plain or not; 0: it begins
// no sentence.
ev_status ev_grammar_choices(const ev_grammar *grammar, const ev_model *model, const char *text,
                             size_t length, size_t *n_tokens);

// How many tokens of the model spell a text at least; -1: none do.
ev_status ev_model_fewest_tokens(const ev_model *model, const char *text, size_t length,
                                 int32_t *n_tokens);

// ---- nearest sentences: what a text that is no sentence may have been; one thread at a time ----

typedef struct ev_nearest ev_nearest;

// What is known of a language: UTF-8 in lower case, words and groups of letters between spaces.
typedef struct ev_language {
    const char *kept;      // numbers and negations: never changed, added or left out
    const char *missing;   // small words that a text may lack
    const char *spare;     // small words that it may have too many
    const char *alike;     // groups of letters that sound alike, "bp dt"; at most 32
    const char *silent;    // letters that may not be heard
    const char *endings;   // letters that may not be heard where a word ends
    const char *spellings; // pairs of one sound, each of one or two letters: "f ph k ck"
} ev_language;

typedef struct ev_near {
    const char *text; // UTF-8
    int32_t cost;     // hundredths of a letter; 0: the text itself
} ev_near;

// Makes a search that keeps `grammar` alive no longer than the call. csrc/nearest.h has the costs.
ev_status ev_nearest_open(const ev_grammar *grammar, const ev_language *language, ev_nearest **out);
// Finds up to `n_best` (1-64) sentences that cost up to `max_cost`, cheapest first. `text`: at most
// 100 words between spaces, without punctuation around them or control characters; of other texts
// nothing is found. `max_work` bounds the time: letters compared and steps made. `*found` is valid
// until the next call; all sentences that cost less than `*searched` are in it, unless there are
// `n_best`. `*work`: what was spent.
ev_status ev_nearest_find(ev_nearest *nearest, const char *text, size_t length, int32_t max_cost,
                          int32_t n_best, int32_t max_work, const ev_near **found, int32_t *n_found,
                          int32_t *searched, int32_t *work);
void ev_nearest_free(ev_nearest *nearest);

// ---- session: one decoder; one thread at a time ----

typedef struct ev_session ev_session;

typedef struct ev_options {
    int32_t threads;     // 1-64
    int32_t language;    // from ev_language_id; ignored by English-only models
    int32_t beam;        // 1-32 hypotheses kept at each step
    int32_t n_best;      // 1-32 sentences returned
    float token_reward;  // nats added for each token: plain scores prefer short sentences
    float lm_weight;     // share of the internal language model that is subtracted, 0-1
    int32_t timeout_ms;  // of each call; 0 = none
    const char *context; // UTF-8, taken for what was said before; NULL: nothing. Copied.
} ev_options;

typedef struct ev_hypothesis {
    const char *text;       // UTF-8, as Whisper spells it, without the leading space
    double score;           // what hypotheses are ranked by, nats
    double log_probability; // of all tokens with end-of-text, nats: exact for the best hypothesis,
                            // of others normalised over the tokens the search looked at, an upper
                            // bound
    int32_t tokens;         // end-of-text included
} ev_hypothesis;

// One token of the best hypothesis, in its place of the unconstrained vocabulary.
typedef struct ev_token {
    int32_t end;           // bytes of the text up to here; end-of-text, the last, has all
    float log_probability; // nats
    float best;            // log-probability of the likeliest token at this place, nats
    float acoustic_gap;    // <= 0, nats: how far the token falls behind the best one when lm_weight
                           // of what the language model says of both is taken out
} ev_token;

typedef struct ev_result {
    const ev_hypothesis *hypotheses; // best first; valid until the next call on the session
    int32_t n_hypotheses;            // 0: the search found no sentence of the grammar
    const ev_token *tokens;          // of the best hypothesis; valid as long
    int32_t n_tokens;
    float no_speech_probability;
    double encode_ms;
    double search_ms;
    int32_t audio_ctx;         // encoder positions used
    int32_t steps;             // decoder steps
    int32_t without_free_text; // 1: the grammar has free text that was not looked for
} ev_result;

// Makes a session that keeps `model` and `grammar` alive. Options are checked here, once.
ev_status ev_session_open(ev_model *model, ev_grammar *grammar, const ev_options *options,
                          ev_session **out);
// Replaces the grammar between two recognitions.
ev_status ev_session_set_grammar(ev_session *session, ev_grammar *grammar);
// How many columns, 10 ms each, the spectrogram of 16 kHz audio must have: the audio, and silence
// after it. 1 to 28 * 16000 samples.
ev_status ev_mel_columns(size_t n_samples, size_t *n_columns);
// Recognises audio by its log-mel spectrogram, as mel.py computes it: n_mels rows of
// ev_mel_columns(n_samples) values, `n_values` in all, finite. `free_text` 0: only by the sentences
// without free text, if the grammar has such.
ev_status ev_session_recognise(ev_session *session, const float *mel, size_t n_values,
                               size_t n_samples, int32_t free_text, ev_result *out);
// After a recognition without free text that ended with EV_OK, once: the same audio, by all
// sentences, until the same deadline. Otherwise EV_ERR_ARGUMENT.
ev_status ev_session_recognise_free_text(ev_session *session, ev_result *out);
// What the model would have written of the same audio without a grammar; once after each
// recognition that ended with EV_OK, otherwise EV_ERR_ARGUMENT. `out` as the hypotheses above, with
// the log-probability for a score.
ev_status ev_session_transcribe(ev_session *session, ev_hypothesis *out);
// Asks a recognition or transcription that runs on another thread to stop, at its next step or, in
// the encoder, at its next operation; between the two, the transcription. Thread-safe.
void ev_session_cancel(ev_session *session);
void ev_session_free(ev_session *session);

// ---- transcription: upstream's own decoder; one thread at a time ----

// Asks whatever it was given to to stop. Thread-safe; must outlive its calls.
typedef struct ev_cancel ev_cancel;
ev_status ev_cancel_new(ev_cancel **out);
void ev_cancel_set(ev_cancel *cancel);
void ev_cancel_free(ev_cancel *cancel);

typedef struct ev_transcriber ev_transcriber;

typedef struct ev_text_token {
    int32_t id;
    const char *bytes; // UTF-8, or the name of a special token; zero-terminated
    float probability, log_probability;
    int64_t start_cs, end_cs; // hundredths of a second; -1: not asked for
    int64_t aligned_cs;       // when it was said, by alignment; -1: without
} ev_text_token;

typedef struct ev_text_segment {
    const char *text; // UTF-8; zero-terminated
    int64_t start_cs, end_cs;
    float no_speech_probability;
    int32_t speaker_turn, language;
    const ev_text_token *tokens;
    int32_t n_tokens;
} ev_text_segment;

// Before each 30 s and at the end, on the thread that transcribes: how much is done, and the
// segments found since, valid during the call. 0: go on; else the transcription ends as if
// cancelled.
typedef int32_t (*ev_on_segments)(void *of, int32_t percent, const ev_text_segment *segments,
                                  int32_t n_segments);
// Before each token is chosen, on any thread, several at a time with several beams: may change the
// logits. 0: go on.
typedef int32_t (*ev_on_logits)(void *of, const int32_t *tokens, int32_t n_tokens, float *logits,
                                int32_t n_logits);

typedef struct ev_transcription {
    int32_t threads;  // 1-64
    int32_t language; // from ev_language_id; -1: detect it
    int32_t translate;
    int32_t beam;                        // 1-8; 1: greedy
    int32_t n_finished;                  // texts of OpenAI's beam search; 0: upstream's beams
    int32_t best_of;                     // 1-8, at temperatures above 0
    float temperature, temperature_step; // 0-1; a step is 0 or 0.05 and more
    float entropy_threshold, log_probability_threshold, no_speech_threshold;
    float length_penalty; // -1: none
    const int32_t *prompt;
    size_t n_prompt;
    int32_t carry_prompt, context;
    const int32_t *hotwords; // before the prompt, for each 30 s; fewer than max_context
    size_t n_hotwords;
    int32_t max_context;           // tokens, 0-224
    int32_t start_cs, duration_cs; // 0: to the end
    int32_t timestamps, single_segment, token_times;
    float token_threshold, token_sum_threshold; // 0-1
    int32_t max_segment_length, split_on_word, max_tokens, audio_ctx;
    int32_t fit_window; // first no more than the audio needs; audio_ctx if that text is doubtful
    float max_initial_timestamp_s; // 0-30
    int32_t suppress_blank, suppress_non_speech, special_tokens, speaker_turns;
    const int32_t *suppress;
    size_t n_suppress;
    float repetition_penalty; // 1-10; 1: none
    int32_t no_repeat_ngram;  // tokens, 0-224; 0: none
    ev_grammar *grammar;      // NULL, or RANGE, EPSILON, CALL, RETURN and ACCEPT arcs only
    int32_t one_window;       // end after the first 30 s or less
    int32_t timeout_ms;       // 0: none
    ev_on_segments on_segments;
    ev_on_logits on_logits; // NULL: none
    void *of;               // for both
} ev_transcription;

typedef struct ev_transcribed {
    int32_t language;
    const float *language_probabilities; // of ev_model_languages(); NULL unless detected; valid
                                         // until the next call
    int32_t aborted; // 0, or the status of what ended it: EV_ERR_CANCELLED, EV_ERR_DEADLINE
    int64_t next_cs; // after one_window: where upstream's next window begins
    double mel_ms, language_ms, encode_ms, prompt_ms, decode_ms, sample_ms;
} ev_transcribed;

// `model`: opened for transcription.
ev_status ev_transcriber_open(ev_model *model, ev_transcriber **out);
// `samples`: 16 kHz, finite, 0.1 s to 12 h. `cancel` may be NULL. Segments go to on_segments.
ev_status ev_transcriber_run(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                             const ev_transcription *options, ev_cancel *cancel,
                             ev_transcribed *out);
// Probabilities of the languages of the first 30 s: writes ev_model_languages() values.
ev_status ev_transcriber_detect(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                                int32_t threads, ev_cancel *cancel, float *probabilities);

// Step by step. The spectrogram of audio, ended by 30 s of silence: n_mels rows of `n_columns`
// values; valid until the next call.
ev_status ev_transcriber_mel(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                             int32_t threads, const float **values, size_t *n_columns);
// Another one: n_mels rows of `n_columns` finite values.
ev_status ev_transcriber_set_mel(ev_transcriber *transcriber, const float *values,
                                 size_t n_columns);
// Encodes 30 s from a column on: n_positions rows of n_state values, valid until the next call.
ev_status ev_transcriber_encode(ev_transcriber *transcriber, size_t column, int32_t threads,
                                const float **values, size_t *n_positions, size_t *n_state);
// Logits of what follows the tokens, after `n_past` of those decoded before: n_vocab values, valid
// until the next call.
ev_status ev_transcriber_decode(ev_transcriber *transcriber, const int32_t *tokens, size_t n_tokens,
                                size_t n_past, int32_t threads, const float **logits);
void ev_transcriber_free(ev_transcriber *transcriber);

// ---- voice activity: Silero through whisper.cpp, streaming ----

typedef struct ev_vad ev_vad;

// `path`: the Silero ggml file that the build installs; the binding has checked its SHA-256.
ev_status ev_vad_open(const char *path, ev_vad **out);
// One window of exactly 512 samples (32 ms at 16 kHz) -> probability of speech 0-1. Carries the
// recurrent state from window to window.
ev_status ev_vad_process(ev_vad *vad, const float *samples, size_t n_samples, float *probability);
// Where speech is in whole audio, as upstream cuts it: writes up to `capacity` numbers, from, to,
// from, to, ... in hundredths of a second, and always how many there are. Forgets what was heard.
ev_status ev_vad_speech(ev_vad *vad, const float *samples, size_t n_samples, float threshold,
                        int32_t min_speech_ms, int32_t min_silence_ms, float max_speech_s,
                        int32_t pad_ms, int64_t *out, size_t capacity, size_t *n_out);
// Forgets what was heard before.
void ev_vad_reset(ev_vad *vad);
void ev_vad_free(ev_vad *vad);

#ifdef __cplusplus
}
#endif
#endif
