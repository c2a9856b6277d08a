// Memory for weights, in stretches long enough for huge pages; a stretch goes when the last weight in it does.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

namespace fulmen {

class Memory {
public:
    explicit Memory(size_t bytes) {
        static std::mutex guard;
        static std::weak_ptr<Stretch> last;
        const size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        const std::lock_guard<std::mutex> held(guard);
        stretch_ = last.lock();
        if (!stretch_ || stretch_->size - stretch_->used < size) last = stretch_ = std::make_shared<Stretch>(size);
        data_ = stretch_->data + stretch_->used;
        stretch_->used += size;
    }

    template <class T>
    T* as() const { return reinterpret_cast<T*>(data_); }

private:
    static constexpr size_t ALIGNMENT = 64, HUGE_PAGE = 2 << 20, USUAL = 32 * HUGE_PAGE;

    struct Stretch {
        explicit Stretch(size_t wanted) : size((std::max(wanted, USUAL) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE) {
            data = static_cast<char*>(std::aligned_alloc(HUGE_PAGE, size));
            if (!data) throw std::bad_alloc();
        }
        ~Stretch() { std::free(data); }
        Stretch(const Stretch&) = delete;
        Stretch& operator=(const Stretch&) = delete;

        size_t size, used = 0;
        char* data;
    };

    std::shared_ptr<Stretch> stretch_;
    char* data_ = nullptr;
};

// Let the pages between two addresses go, which lie in a file and are not to be read again soon: who reads them gets them.
inline void let_go(const void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_PAGEOUT)
    constexpr uintptr_t PAGE = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / PAGE * PAGE;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_PAGEOUT);
#endif
}

}  // namespace fulmen
