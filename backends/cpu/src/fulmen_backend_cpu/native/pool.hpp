// A pool of threads that survives a contended machine. Work is handed out in small chunks by one atomic counter: a
// thread that the operating system does not schedule costs its chunk and nothing else, and a thread that keeps
// costing chunks is left out for a while. OpenMP's equal shares and barriers cost a time slice for each loop instead.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace fulmen {

class Pool {
  public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }
    // How often a thread was left out because it was not scheduled.
    int64_t stalls() const { return stalls_.load(std::memory_order_relaxed); }

    // Call `f(index, worker)` for every index below `count`; the caller is worker 0. Returns when all are done.
    template <class F>
    void run(int count, const F& f) {
        if (threads_ == 1 || count == 1) {
            for (int i = 0; i < count; i++) f(i, 0);
            return;
        }
        hand_out(count, [](const void* context, int index, int worker) { (*static_cast<const F*>(context))(index, worker); },
                 &f);
    }

  private:
    using Call = void (*)(const void*, int, int);

    void hand_out(int count, Call call, const void* context);
    bool take(int worker, uint64_t& seen);
    void work(int worker);

    const int threads_;
    std::vector<std::thread> workers_;
    // generation:24 | count:20 | next index:20. One word, so that a thread that comes late can never take an index of
    // one job with the function of another.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<int> asleep_{0};
    std::atomic<int> active_;
    std::atomic<bool> closing_{false};
    std::atomic<int64_t> stalls_{0};
    Call call_ = nullptr;
    const void* context_ = nullptr;
    uint64_t generation_ = 0;
    int64_t retry_at_ = 0;      // ns; when the threads that were left out are tried again
    int64_t left_out_for_ = 0;  // ns; doubles while stalls are frequent, halves when they are not
    std::mutex mutex_;
    std::condition_variable wake_;
};

}  // namespace fulmen
