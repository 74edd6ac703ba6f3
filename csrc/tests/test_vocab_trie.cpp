// The vocabulary trie: every token is found by its bytes, and nothing else is.
#include "vocab_trie.h"

#include "check.h"

#include <map>

namespace test {

namespace {

using Found = std::map<std::string, int32_t>;

void collect(const ev::VocabTrie &trie, const ev::VocabTrie::Node &node, const std::string &prefix,
             Found &found) {
    if (node.token >= 0)
        CHECK(found.emplace(prefix, node.token).second);
    const ev::VocabTrie::Node *children = trie.children(node);
    for (uint16_t i = 0; i < node.n_children; ++i) {
        CHECK(i == 0 || children[i - 1].byte < children[i].byte);
        collect(trie, children[i], prefix + char(children[i].byte), found);
    }
}

// What the trie holds is what the definition says: the first of equal tokens, no empty ones.
bool holds(const std::vector<std::string> &tokens) {
    Found expected, found;
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (!tokens[i].empty())
            expected.emplace(tokens[i], int32_t(i));
    }
    const ev::VocabTrie trie({tokens.begin(), tokens.end()});
    collect(trie, trie.root(), "", found);
    return found == expected;
}

} // namespace

void test_vocab_trie() {
    CHECK(holds({}));
    CHECK(holds({""}));
    CHECK(holds({"a"}));
    CHECK(holds({"", "a", "", "a"}));
    CHECK(holds({"abc", "ab", "a", "b", "abd", "ab"}));
    CHECK(holds({"\xff", "\x80\xff", "\x7f", std::string(1, '\0'), std::string(2, '\0')}));
    CHECK(holds({" on", " On", "on", "\xc3\xa9", "\xc3", "\xa9"}));

    std::vector<std::string> all_bytes;
    for (int byte = 0; byte < 256; ++byte)
        all_bytes.push_back(std::string(1, char(byte)));
    CHECK(holds(all_bytes));
    CHECK(holds({std::string(128, 'x'), std::string(127, 'x')})); // longest word of a model file

    Random random(2);
    for (int round = 0; round < 30; ++round) {
        std::vector<std::string> tokens(random.below(2000));
        const uint32_t alphabet = round % 2 == 0 ? 3 : 256; // few bytes: many duplicates
        for (std::string &token : tokens) {
            token.resize(random.below(8));
            for (char &byte : token)
                byte = char(random.below(alphabet) + 256 - alphabet);
        }
        CHECK(holds(tokens));
    }
}

} // namespace test
