// What the operators have in common: reading what a node has, and telling ONNX Runtime of an operator.
#pragma once

#include <exception>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime_interface.hpp"

namespace fulmen {

class Failure : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Tensor {
    void* data = nullptr;  // null: the node has no such input
    std::vector<int64_t> dimensions;

    const float* floats() const { return static_cast<const float*>(data); }
    const uint8_t* bytes() const { return static_cast<const uint8_t*>(data); }
    int64_t rows() const { return size() / dimensions.back(); }
    int64_t size() const { return std::accumulate(dimensions.begin(), dimensions.end(), int64_t{1}, std::multiplies<int64_t>()); }
};

class Interface {
public:
    explicit Interface(const ort::Api* api) : api_(api) {}

    void check(ort::Status* status) const {
        if (!status) return;
        const std::string message = api_->message_of(status);
        api_->release_status(status);
        throw Failure(message);
    }

    ort::Status* failure(const char* message) const { return api_->create_status(ort::FAILURE, message); }

    int64_t integer(const ort::KernelInfo* info, const char* name) const {
        int64_t value = 0;
        check(api_->integer_attribute(info, name, &value));
        return value;
    }

    Tensor constant(const ort::KernelInfo* info, size_t index) const {
        int is_constant = 0;
        const ort::Value* value = nullptr;
        check(api_->constant_input(info, index, &is_constant, &value));
        if (!is_constant) throw Failure("a weight is no constant of the graph");
        return read(value);
    }

    Tensor input(const ort::KernelContext* context, size_t index) const {
        const ort::Value* value = nullptr;
        check(api_->input(context, index, &value));
        return value ? read(value) : Tensor{};
    }

    float* output(ort::KernelContext* context, const std::vector<int64_t>& dimensions) const {
        ort::Value* value = nullptr;
        check(api_->output(context, 0, dimensions.data(), dimensions.size(), &value));
        return static_cast<float*>(data(value));
    }

    // act(index) for each index below `count`, on the session's threads.
    template <class Act>
    void in_parallel(const ort::KernelContext* context, size_t count, const Act& act) const {
        const auto call = [](void* data, size_t index) { (*static_cast<const Act*>(data))(index); };
        check(api_->parallel_for(context, call, count, 0, const_cast<Act*>(&act)));
    }

private:
    void* data(const ort::Value* value) const {
        void* found = nullptr;
        check(api_->data_of(const_cast<ort::Value*>(value), &found));
        return found;
    }

    Tensor read(const ort::Value* value) const {
        ort::Shape* shape = nullptr;
        check(api_->shape_of(value, &shape));
        size_t rank = 0;
        Tensor tensor;
        ort::Status* status = api_->rank_of(shape, &rank);
        if (!status) {
            tensor.dimensions.resize(rank);
            status = api_->dimensions_of(shape, tensor.dimensions.data(), rank);
        }
        api_->release_shape(shape);
        check(status);
        tensor.data = data(value);
        return tensor;
    }

    const ort::Api* api_;
};

// The operator `Kernel`, which has NAME, INPUTS, is_required(input), a constructor from (Interface, info), `runtime` and
// compute(context). Its inputs may be of any type: what calls it knows.
template <class Kernel>
const ort::Operator* operator_of() {
    static const ort::Operator made = [] {
        ort::Operator one{};
        one.version = ort::VERSION;
        one.name = [](const ort::Operator*) { return Kernel::NAME; };
        one.provider = [](const ort::Operator*) -> const char* { return nullptr; };  // the CPU
        one.inputs = [](const ort::Operator*) { return Kernel::INPUTS; };
        one.input_type = [](const ort::Operator*, size_t) { return ort::Element::ANY; };
        one.outputs = [](const ort::Operator*) -> size_t { return 1; };
        one.output_type = [](const ort::Operator*, size_t) { return ort::Element::FLOAT32; };
        one.input_presence = [](const ort::Operator*, size_t index) {
            return Kernel::is_required(index) ? ort::Presence::REQUIRED : ort::Presence::OPTIONAL;
        };
        one.output_presence = [](const ort::Operator*, size_t) { return ort::Presence::REQUIRED; };
        one.input_memory = [](const ort::Operator*, size_t) { return 0; };
        one.create = [](const ort::Operator*, const ort::Api* api, const ort::KernelInfo* info, void** kernel) -> ort::Status* {
            const Interface runtime(api);
            try {
                *kernel = new Kernel(runtime, info);
            } catch (const std::exception& error) {
                return runtime.failure(error.what());
            }
            return nullptr;
        };
        one.compute = [](void* kernel, ort::KernelContext* context) -> ort::Status* {
            Kernel& self = *static_cast<Kernel*>(kernel);
            try {
                self.compute(context);
            } catch (const std::exception& error) {
                return self.runtime.failure(error.what());
            }
            return nullptr;
        };
        one.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
        return one;
    }();
    return &made;
}

}  // namespace fulmen
