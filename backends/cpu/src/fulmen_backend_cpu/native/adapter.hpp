// LoRA adapters (arXiv 2106.09685): y += B (A x) for the rows of the sequences that have one. A x is computed before a
// weight's product, B's part is added to each finished block of it while that is in the first cache. All in float32 and
// in order, whatever the number of rows: a sequence's results do not depend on its neighbours' adapters.
//
// Legend: R rank, of all projections in a product together.
#pragma once

#include <array>
#include <vector>

#include "arena.hpp"
#include "product.hpp"

namespace fulmen {

struct Model;

// The products of a layer that an adapter may change, in the order of `native_library.Product`.
enum class Product { QKV, OUT, GATE_UP, DOWN };
constexpr int PRODUCTS = 4;

// Some outputs of B: a panel as `Matrix` has them, of the weight's outputs and of the ranks in [begin, end). The others
// are zero, being of other projections, and not kept.
struct DeltaPanel {
    int begin, end;
    const float* data;  // [end - begin][16]
};

// The change of one product.
struct Delta {
    Matrix a;                   // R outputs
    std::vector<DeltaPanel> b;  // those with the same ranks lie side by side
};

struct Adapter {
    explicit Adapter(int layers) : layers(layers) {}
    Arena memory;
    std::vector<std::array<Delta, PRODUCTS>> layers;

    // Take a change: `a` [rank][inputs], `b` [..][rank]; `rows` names b's row for each of the weight's `outputs`, -1
    // for none.
    void set(int layer, Product product, const float* a, const float* b, int rank, int inputs, const int32_t* rows, int outputs);
};

// Rows of a step whose sequences have the same adapter.
struct AdaptedRows {
    const Adapter* adapter;
    int begin, end;
};

// What a step's adapters add to one product.
class Deltas {
  public:
    Deltas() = default;
    // Computes A x for all rows of `x` that have an adapter which changes the product.
    Deltas(Model& m, int layer, Product product, const Rows& x);

    // Add to a block of results: rows of the step from `row` on, outputs from `column` on.
    void add(int row, int rows, int column, int columns, float* block, int stride) const {
        if (model_) add_all(row, rows, column, columns, block, stride);
    }

  private:
    void add_all(int row, int rows, int column, int columns, float* block, int stride) const;

    const Model* model_ = nullptr;  // null: nothing is added
    int layer_ = 0;
    Product product_ = Product::QKV;
};

}  // namespace fulmen
