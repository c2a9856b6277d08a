// The part of ONNX Runtime's C interface that operators of one's own need: nothing has to be installed to compile them.
//
// The table of functions only ever grows at its end, so that a function's place in it, which is asserted below, is the
// same in every version. What an operator is asked is of version 16: later versions ask it no more than that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t VERSION = 16;

struct Status;
struct Value;
struct Shape;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct Domain;
struct Operator;

enum class Element : int { ANY = 0, FLOAT32 = 1, UINT8 = 2 };
enum class Presence : int { REQUIRED = 0, OPTIONAL = 1 };
constexpr int FAILURE = 1;

// A null `Status*` says that all went well.
struct Api {
    Status* (*create_status)(int code, const char* message);
    void* unused_1[1];
    const char* (*message_of)(const Status* status);
    void* unused_3[23];
    Status* (*create_domain)(const char* name, Domain** domain);
    Status* (*add_operator)(Domain* domain, const Operator* one);
    Status* (*add_domain)(SessionOptions* options, Domain* domain);
    void* unused_29[22];
    Status* (*data_of)(Value* tensor, void** data);
    void* unused_52[9];
    Status* (*rank_of)(const Shape* shape, size_t* rank);
    Status* (*dimensions_of)(const Shape* shape, int64_t* dimensions, size_t rank);
    void* unused_63[2];
    Status* (*shape_of)(const Value* tensor, Shape** shape);
    void* unused_66[20];
    Status* (*integer_attribute)(const KernelInfo* info, const char* name, int64_t* value);
    void* unused_87[3];
    Status* (*input)(const KernelContext* context, size_t index, const Value** tensor);
    Status* (*output)(KernelContext* context, size_t index, const int64_t* dimensions, size_t rank, Value** tensor);
    void* unused_92[1];
    void (*release_status)(Status* status);
    void* unused_94[5];
    void (*release_shape)(Shape* shape);
    void* unused_100[149];
    Status* (*constant_input)(const KernelInfo* info, size_t index, int* is_constant, const Value** tensor);
    void* unused_250[24];
    Status* (*parallel_for)(const KernelContext* context, void (*act)(void* data, size_t index), size_t count, size_t batches,
                            void* data);
};

#define FULMEN_AT(member, place) static_assert(offsetof(Api, member) == (place) * sizeof(void*), #member)
FULMEN_AT(message_of, 2);
FULMEN_AT(create_domain, 26);
FULMEN_AT(add_domain, 28);
FULMEN_AT(data_of, 51);
FULMEN_AT(rank_of, 61);
FULMEN_AT(dimensions_of, 62);
FULMEN_AT(shape_of, 65);
FULMEN_AT(integer_attribute, 86);
FULMEN_AT(input, 90);
FULMEN_AT(output, 91);
FULMEN_AT(release_status, 93);
FULMEN_AT(release_shape, 99);
FULMEN_AT(constant_input, 249);
FULMEN_AT(parallel_for, 274);
#undef FULMEN_AT

struct ApiBase {
    const Api* (*api)(uint32_t version);
    const char* (*version)();
};

// What ONNX Runtime asks an operator.
struct Operator {
    uint32_t version;
    void* unused_create;
    const char* (*name)(const Operator*);
    const char* (*provider)(const Operator*);
    Element (*input_type)(const Operator*, size_t index);
    size_t (*inputs)(const Operator*);
    Element (*output_type)(const Operator*, size_t index);
    size_t (*outputs)(const Operator*);
    void* unused_compute;
    void (*destroy)(void* kernel);
    Presence (*input_presence)(const Operator*, size_t index);
    Presence (*output_presence)(const Operator*, size_t index);
    int (*input_memory)(const Operator*, size_t index);
    void* unused_variadic[4];
    Status* (*create)(const Operator*, const Api*, const KernelInfo*, void** kernel);
    Status* (*compute)(void* kernel, KernelContext*);
    void* unused_shapes;
};

}  // namespace ort
