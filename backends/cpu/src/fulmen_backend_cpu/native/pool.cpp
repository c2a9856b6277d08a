#include "pool.hpp"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fulmen {
namespace {

constexpr uint64_t FIELD = (1u << 20) - 1;
constexpr int64_t SPIN_NS = 150'000;         // a waiting worker burns this much before it sleeps: longer than any serial part
constexpr int64_t STALL_NS = 400'000;        // waited this long for others' last chunks: somebody is not scheduled
constexpr int64_t LEFT_OUT_NS = 2'000'000;   // first penalty: about a time slice
constexpr int64_t LONGEST_NS = 640'000'000;
constexpr int64_t WORTH = 5;                 // undisturbed time that outweighs a wait, in waits

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) : threads_(threads < 1 ? 1 : threads), active_(threads_) {
    for (int worker = 1; worker < threads_; worker++) workers_.emplace_back([this, worker] { work(worker); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        closing_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
}

// Run one chunk of the current job; false if there is none left. `seen` becomes the ticket that was read.
bool Pool::take(int worker, uint64_t& seen) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (true) {
        seen = ticket;
        const uint64_t index = ticket & FIELD, count = (ticket >> 20) & FIELD;
        if (index >= count) return false;
        // Stable while the job has an index left; the exchange below proves that it had.
        const Call call = call_;
        const void* context = context_;
        if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
            call(context, (int)index, worker);
            done_.fetch_add(1, std::memory_order_release);
            return true;
        }
    }
}

void Pool::hand_out(int count, Call call, const void* context) {
    if (active_.load(std::memory_order_relaxed) < threads_ && now_ns() >= retry_at_) active_ = threads_;
    if (active_.load(std::memory_order_relaxed) == 1) {
        for (int i = 0; i < count; i++) call(context, i, 0);
        return;
    }
    call_ = call;
    context_ = context;
    done_.store(0, std::memory_order_relaxed);
    generation_++;
    ticket_.store(generation_ << 40 | (uint64_t)count << 20, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    uint64_t seen = 0;
    const int64_t begun = now_ns();
    int mine = 0;
    while (take(0, seen)) mine++;
    if (done_.load(std::memory_order_acquire) == count) return;
    const int64_t waiting_since = now_ns();
    // A chunk of ours took this long; others' may take a few times as long before we call it a stall.
    const int64_t patience = STALL_NS + (mine ? 4 * (waiting_since - begun) / mine : 0);
    bool stalled = false;
    for (int spins = 1; done_.load(std::memory_order_acquire) != count; spins++) {
        pause();
        if (spins % 256) continue;
        if (!stalled && now_ns() - waiting_since > patience) stalled = true;
        if (stalled) std::this_thread::yield();
    }
    if (stalled) {
        const int64_t now = now_ns();
        // A stall now and then is cheaper than a thread less; a neighbour that stays is not.
        const bool rare = waiting_since - retry_at_ >= WORTH * (now - waiting_since);
        left_out_for_ = std::clamp(rare ? left_out_for_ / 2 : 2 * left_out_for_, LEFT_OUT_NS, LONGEST_NS);
        retry_at_ = now + left_out_for_;
        active_ = 1;
        stalls_.fetch_add(1, std::memory_order_relaxed);
    }
}

void Pool::work(int worker) {
    uint64_t seen = 0;
    while (true) {
        while (worker < active_.load(std::memory_order_relaxed) && take(worker, seen)) {
        }
        // Nothing to take in the job that `seen` names: wait for another.
        const int64_t since = now_ns();
        for (int spins = 1;; spins++) {
            if (ticket_.load(std::memory_order_relaxed) >> 20 != seen >> 20) break;
            pause();
            if (spins % 64 || now_ns() - since < SPIN_NS) continue;
            std::unique_lock<std::mutex> lock(mutex_);
            asleep_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [&] { return closing_ || ticket_.load(std::memory_order_seq_cst) >> 20 != seen >> 20; });
            asleep_.fetch_sub(1, std::memory_order_seq_cst);
            if (closing_) return;
            break;
        }
        if (worker >= active_.load(std::memory_order_relaxed)) seen = ticket_.load(std::memory_order_acquire);
    }
}

}  // namespace fulmen
