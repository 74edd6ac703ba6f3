// The sentences of a grammar nearest to a text that is none: a best-first search over (DFA state,
// word of the text), with what it costs to change, add or leave out words.
//
// Words are the unit, not letters: an unknown word may become a word of the grammar that is
// written or sounds nearly the same, and nothing else is cheap. So two rules hold whatever the
// grammar is: a word that the grammar knows is never taken for another one ("on" for "off"), and a
// number or a "not" is never changed, added or left out.
#pragma once

#include "automaton.h"

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace ev {

// Costs in hundredths of a letter.
namespace cost {
constexpr int32_t letter = 100; // one letter more, less or in place of another
constexpr int32_t alike = 50;   // if it is not heard, sounds alike, or two changed places
constexpr int32_t doubled = 25; // a letter written twice or once, an apostrophe
constexpr int32_t first = 2;    // times as much where words begin: "activate", "deactivate"
constexpr int32_t space = 25;   // one more or less between words
constexpr int32_t small = 50;   // a small word more or less
constexpr int32_t word = 300;   // any word more, less or in place of another
constexpr int32_t free = 1;     // a word of free text: what is not free is better

// What the letters of a word may cost; what costs more is another word. A quarter of the letters,
// so that words of one or two are right or wrong, and never more than 1.25: two letters tell
// "increase" from "decrease" and "minimum" from "maximum".
constexpr int32_t most(size_t letters) {
    return letters < 3 ? 0 : letters >= 5 ? 125 : int32_t(letters) * 25;
}
} // namespace cost

// As ev_language.
struct Language {
    std::string kept, missing, spare, alike, silent, endings, spellings;
};

// Cost of writing one word in place of another, letter by letter.
class Letters {
  public:
    explicit Letters(const Language &language);

    struct Pair {
        std::u32string one, other;
    };

    bool alike(char32_t a, char32_t b) const { return (group(a) & group(b)) != 0; }
    // A letter that one word has and the other has not; `before`: the one before it, 0: none.
    int32_t alone(char32_t letter, char32_t before) const;
    // A letter that may not be heard where a word ends.
    bool ending(char32_t letter) const { return endings_.find(letter) != std::u32string::npos; }
    const std::vector<Pair> &spellings() const { return spellings_; }

  private:
    uint32_t group(char32_t letter) const {
        const auto known = groups_.find(letter);
        return known == groups_.end() ? 0 : known->second;
    }

    std::unordered_map<char32_t, uint32_t> groups_;
    std::u32string silent_, endings_;
    std::vector<Pair> spellings_; // both ways round
};

class Nearest {
  public:
    static constexpr size_t max_words = 100;
    static constexpr size_t max_letters = 64;

    Nearest(const Automaton &automaton, const Language &language);

    struct Sentence {
        std::string
            text; // words as they were said, those that were changed as the grammar has them
        int32_t cost;
    };
    struct Found {
        std::vector<Sentence> sentences; // cheapest first, no text twice
        int32_t searched = 0;            // all that cost less were found
        int32_t work = 0;
    };

    // Up to `n_best` sentences that cost up to `max_cost`. `text`: words between spaces. The work,
    // letters compared and steps made, ends at `max_work`. Throws as Dfa.
    Found find(const std::string &text, int32_t max_cost, size_t n_best, int32_t max_work);

  private:
    struct Change {
        std::string word;
        int32_t cost;
    };
    struct Said {
        std::string written;
        std::string word; // in lower case
        std::u32string letters;
        bool kept, known, spare;
        bool looked_up = false, joined_up = false;
        std::vector<Change> changes, joined; // of this word; of this and the next as one
    };
    struct Step {
        int32_t cost;
        int32_t state;
        int32_t at;         // words of the text that are behind
        int32_t parent;     // the step before, -1: none
        bool spelling;      // `word` is still being written
        bool free;          // the last word is free text: only a word that was said ends it
        uint64_t text_hash; // of all words so far
        std::string word;   // or several; empty: one was left out
    };
    class Comparer;
    class Search;

    bool is_kept(const std::string &word) const;
    bool knows(std::string_view word);
    // Where a word leads, or several, after a separator unless they begin the sentence.
    int32_t walk(int32_t state, std::string_view text);

    Letters letters_;
    std::unordered_set<std::string> kept_, spare_;
    std::vector<std::string> parts_; // kept words that longer ones may hold: "zweihundert"
    std::vector<std::string> missing_;
    Dfa sentences_; // of the grammar; one byte stands for a word of free text
    Dfa words_;     // all words of the grammar, wherever they stand
};

} // namespace ev
