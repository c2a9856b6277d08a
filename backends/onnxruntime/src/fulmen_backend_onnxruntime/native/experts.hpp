// QMoE of 8 or 4 bits with SwiGLU: a mixture of the experts that are chosen for each token.
//
// Legend: T tokens, E experts, K experts of a token, D model width, F inner width.
#pragma once

#include <algorithm>

#include "panels.hpp"

namespace fulmen {

// exp(x) for x <= 0, to three units in the last place; below -87 it is next to 0.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    const __m512 twos = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    const __m512 whole = _mm512_roundscale_ps(twos, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693147180559945f), x);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    for (const float next : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(next));
    return _mm512_scalef_ps(p, whole);
}

inline __m512 silu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), small = exponential(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
    const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    const __m512 sigmoid = _mm512_div_ps(_mm512_mask_blend_ps(negative, one, small), _mm512_add_ps(one, small));
    return _mm512_mul_ps(x, sigmoid);
}

class Experts {
public:
    static constexpr const char* NAME = "QMoE";
    static constexpr size_t INPUTS = 15;
    static constexpr bool is_required(size_t index) { return index < 4 || index == 5 || index == 6; }

    Experts(const Interface& runtime, const ort::KernelInfo* info)
        : runtime(runtime), chosen_(runtime.integer(info, "k")), block_(runtime.integer(info, "block_size")),
          is_normalized_(runtime.integer(info, "normalize_routing_weights") != 0) {
        const Tensor first = runtime.constant(info, 2), first_scales = runtime.constant(info, 3);
        const Tensor second = runtime.constant(info, 5), second_scales = runtime.constant(info, 6);
        experts_ = (int)first.dimensions[0];
        const int bits = (int)runtime.integer(info, "expert_weight_bits");
        width_ = (int)second.dimensions[1];
        inner_ = (int)first.dimensions[1] / 2;
        // A panel has 32 gates, then what they gate; in the node's weights they take turns.
        const int panels = (inner_ + HALF - 1) / HALF, outputs = 2 * inner_;
        const auto row_of = [this](int n) {
            const int inner = n / PANEL * HALF + n % HALF;
            return inner < inner_ ? 2 * inner + n % PANEL / HALF : -1;
        };
        for (int e = 0; e < experts_; e++) {
            gate_up_.emplace_back(first, first_scales, (size_t)e * outputs, panels * PANEL, Blocks{width_ / block_, block_, bits}, row_of);
            down_.emplace_back(second, second_scales, (size_t)e * width_, width_, Blocks{inner_ / block_, block_, bits},
                               [](int n) { return n; });
        }
        let_go(first.data, first.size());
        let_go(second.data, second.size());
    }

    void compute(ort::KernelContext* context) const {
        const Tensor x = runtime.input(context, 0), ranks = runtime.input(context, 1), scores = runtime.input(context, 14);
        float* y = runtime.output(context, x.dimensions);
        static thread_local Work memory;
        Work& work = memory;  // to another thread the name would be its own
        const int tokens = (int)x.rows();
        route(work, ranks.floats(), scores.floats(), tokens);
        work.inputs.reshape(tokens, width_, block_);
        for (int t = 0; t < tokens; t++) work.inputs.put(t, x.floats() + (size_t)t * width_);

        work.hidden.resize((size_t)tokens * chosen_ * inner_);
        const int panels = gate_up_[0].count();
        runtime.in_parallel(context, work.busy.size() * panels, [&](size_t task) {
            activate(work, work.busy[task / panels], (int)(task % panels));
        });

        work.activated.reshape(tokens * chosen_, inner_, block_);
        for (int pair = 0; pair < tokens * chosen_; pair++) work.activated.put(pair, &work.hidden[(size_t)pair * inner_]);
        const int down_panels = down_[0].count();
        const int* all = in_order(tokens * chosen_);
        runtime.in_parallel(context, (down_panels + TOGETHER - 1) / TOGETHER, [&](size_t task) {
            const int panel = (int)task * TOGETHER;
            mix(work, all, panel, std::min(panel + TOGETHER, down_panels), tokens, y);
        });
    }

    const Interface runtime;

private:
    static constexpr int HALF = PANEL / 2;
    static constexpr int TOGETHER = 4;  // panels of a task of the second product: they adjoin in memory

    // Pairs of a token and an expert that is chosen for it, expert by expert.
    struct Work {
        std::vector<int> starts;  // of each expert's pairs; one more at the end
        std::vector<int> busy;    // experts that have any
        std::vector<int> tokens;
        std::vector<float> weights;
        std::vector<int> order, picked;
        std::vector<float> picked_weights;
        Rows inputs, activated;
        std::vector<float> hidden;

        int pairs_of(int expert) const { return starts[expert + 1] - starts[expert]; }
    };

    void route(Work& work, const float* ranks_TE, const float* scores_TE, int tokens) const {
        const int pairs = tokens * chosen_;
        for (auto* one : {&work.picked, &work.tokens}) one->resize(pairs);
        for (auto* one : {&work.picked_weights, &work.weights}) one->resize(pairs);
        work.order.resize(experts_);
        work.starts.assign(experts_ + 1, 0);
        for (int t = 0; t < tokens; t++) {
            const float* ranks = ranks_TE + (size_t)t * experts_;
            std::iota(work.order.begin(), work.order.end(), 0);
            std::partial_sort(work.order.begin(), work.order.begin() + chosen_, work.order.end(),
                              [&](int a, int b) { return ranks[a] != ranks[b] ? ranks[a] > ranks[b] : a < b; });
            weigh(work.order.data(), ranks, scores_TE ? scores_TE + (size_t)t * experts_ : nullptr, &work.picked_weights[t * chosen_]);
            for (int k = 0; k < chosen_; k++) {
                work.picked[t * chosen_ + k] = work.order[k];
                work.starts[work.order[k] + 1]++;
            }
        }
        work.busy.clear();
        for (int e = 0; e < experts_; e++) {
            if (work.starts[e + 1]) work.busy.push_back(e);
            work.starts[e + 1] += work.starts[e];
        }
        work.order.assign(work.starts.begin(), work.starts.end() - 1);  // where each expert's next pair goes
        for (int pair = 0; pair < pairs; pair++) {
            const int place = work.order[work.picked[pair]]++;
            work.tokens[place] = pair / chosen_;
            work.weights[place] = work.picked_weights[pair];
        }
    }

    // By what the chosen experts are mixed: a softmax of what they were chosen by, or their scores.
    void weigh(const int* chosen, const float* ranks, const float* scores, float* weights) const {
        float total = 0;
        for (int k = 0; k < chosen_; k++) {
            weights[k] = scores ? scores[chosen[k]] : std::exp(ranks[chosen[k]] - ranks[chosen[0]]);
            total += weights[k];
        }
        if ((is_normalized_ || !scores) && total > 0)
            for (int k = 0; k < chosen_; k++) weights[k] /= total;
    }

    void activate(Work& work, int expert, int panel) const {
        const int start = work.starts[expert], first = panel * HALF;
        gate_up_[expert].multiply(panel, work.inputs, &work.tokens[start], work.pairs_of(expert), [&](int row, const __m512* sums) {
            float* to = &work.hidden[(size_t)(start + row) * inner_ + first];
            for (int v = 0; v < VECTORS / 2 && first + v * LANES < inner_; v++)
                _mm512_mask_storeu_ps(to + v * LANES, lanes(inner_ - first - v * LANES),
                                      _mm512_mul_ps(silu(sums[v]), sums[v + VECTORS / 2]));
        });
    }

    void mix(const Work& work, const int* all, int panel, int end, int tokens, float* y) const {
        const int first = panel * PANEL, last = std::min(end * PANEL, width_);
        for (int t = 0; t < tokens; t++) std::fill(y + (size_t)t * width_ + first, y + (size_t)t * width_ + last, 0.0f);
        for (const int expert : work.busy)
            for (int p = panel; p < end; p++) mix_panel(work, all, expert, p, y);
    }

    void mix_panel(const Work& work, const int* all, int expert, int panel, float* y) const {
        const int first = panel * PANEL, start = work.starts[expert];
        down_[expert].multiply(panel, work.activated, all + start, work.pairs_of(expert), [&](int row, const __m512* sums) {
            float* to = y + (size_t)work.tokens[start + row] * width_ + first;
            const __m512 weight = _mm512_set1_ps(work.weights[start + row]);
            for (int v = 0; v < VECTORS && first + v * LANES < width_; v++, to += LANES) {
                const __mmask16 mask = lanes(width_ - first - v * LANES);
                _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(weight, sums[v], _mm512_maskz_loadu_ps(mask, to)));
            }
        });
    }

    int chosen_, block_;
    bool is_normalized_;
    int experts_ = 0, width_ = 0, inner_ = 0;
    std::vector<Panels> gate_up_, down_;  // [E]
};

}  // namespace fulmen
