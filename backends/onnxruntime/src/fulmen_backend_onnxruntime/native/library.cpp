// What ONNX Runtime calls when the library is registered with a session.

#include <mutex>

#include "experts.hpp"
#include "matmul.hpp"

namespace {

// The domain of the operators; a graph that names it has them compute.
constexpr const char* DOMAIN_NAME = "fulmen.native";

ort::Status* make_domain(const ort::Api* api, ort::Domain** domain) {
    if (ort::Status* status = api->create_domain(DOMAIN_NAME, domain)) return status;
    if (ort::Status* status = api->add_operator(*domain, fulmen::operator_of<fulmen::MatMul>())) return status;
    return api->add_operator(*domain, fulmen::operator_of<fulmen::Experts>());
}

}  // namespace

extern "C" {

int fulmen_features() { return 0; }

// All sessions share one domain, which stays.
ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
    static std::mutex guard;
    static ort::Domain* domain = nullptr;
    const std::lock_guard<std::mutex> held(guard);
    const ort::Api* api = base->api(ort::VERSION);
    if (!domain)
        if (ort::Status* status = make_domain(api, &domain)) return status;
    return api->add_domain(options, domain);
}
}
