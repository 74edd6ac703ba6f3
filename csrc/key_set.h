// A set of numbers that is emptied at no cost: what was seen while one byte is read. And a hash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ev {

// For the library's tables: its own hash is the key, of which a size_t of 32 bits holds only the
// lower half.
struct BothHalves {
    size_t operator()(uint64_t key) const noexcept {
        return sizeof(size_t) < sizeof key ? size_t(key ^ (key >> 32)) : size_t(key);
    }
};

class KeySet {
  public:
    // Returns whether the key is new.
    bool insert(uint64_t key) {
        if (2 * (size_ + 1) > slots_.size())
            grow();
        Slot &slot = slots_[find(key)];
        if (slot.round == round_)
            return false;
        slot = {key, round_};
        ++size_;
        return true;
    }

    bool contains(uint64_t key) const {
        return !slots_.empty() && slots_[find(key)].round == round_;
    }

    size_t size() const { return size_; }

    void clear() {
        size_ = 0;
        if (++round_ ==
            0) { // after four billion: what is left of the first rounds would count again
            slots_.assign(slots_.size(), {});
            round_ = 1;
        }
    }

  private:
    struct Slot {
        uint64_t key = 0;
        uint32_t round = 0; // in which it was inserted
    };

    // Where a key is, or would be. Linear probing: half of the slots are free.
    size_t find(uint64_t key) const {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): keys differ in all
        // bits.
        size_t at = size_t((key * 0x9E3779B97F4A7C15u) >> 32) & (slots_.size() - 1);
        while (slots_[at].round == round_ && slots_[at].key != key)
            at = (at + 1) & (slots_.size() - 1);
        return at;
    }

    void grow() {
        std::vector<Slot> old(slots_.empty() ? 256 : 2 * slots_.size());
        old.swap(slots_);
        for (const Slot &slot : old) {
            if (slot.round == round_)
                slots_[find(slot.key)] = slot;
        }
    }

    std::vector<Slot> slots_; // a power of two
    size_t size_ = 0;
    uint32_t round_ = 1;
};

} // namespace ev
