#include "vmm/control/process_list.h"

#include <fmt/core.h>

#include <fstream>
#include <map>
#include <vector>

#include "vmm/observe/figures.h"
#include "vmm/observe/page_walk.h"
#include "vmm/process/host_process.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {
namespace {

std::string name_in(const std::string& file) {
  std::string name;
  std::getline(std::ifstream(file), name);
  return name;
}

std::string state_of(const Vcpu& vcpu) {
  if (vcpu.host_thread.load() == 0) return "ended";
  const uint32_t call = vcpu.current_call.load(std::memory_order_relaxed);
  if (call == kNoCall) return "guest";
  if (call < kServiceBase) return call_name(call_index(call));
  const uint32_t service = call - kServiceBase;
  return service < kServiceCount ? service_name(service) : "guest";
}

struct Running {
  const Vcpu* vcpu;
  const HostProcess* process;  // its record may be used again meanwhile, but never goes away
};

// The vCPUs that run a thread of the program.
std::vector<Running> running() {
  std::vector<Running> list;
  for (const Vcpu& vcpu : vcpus()) {
    const HostProcess* const process = vcpu.process;
    if (vcpu.state.load() != VcpuState::kBusy || process == nullptr) continue;
    if (vcpu.is_alive()) list.push_back({&vcpu, process});
  }
  return list;
}

}  // namespace

Json process_list() {
  std::map<uint32_t, Json> by_id;
  for (const auto& [vcpu, process] : running()) {
    const uint32_t id = process->process_id;
    Json& json = by_id[id];
    if (json.is_null()) {
      json = {{"process", id},
              {"parent", process->parent == nullptr ? 0 : process->parent->process_id},
              {"name", name_in(fmt::format("/proc/{}/comm", id))},
              {"space", space_root(vcpu->index)},
              {"threads", Json::array()}};
    }
    const uint32_t thread = vcpu->host_thread.load();
    json["threads"].push_back({{"thread", thread},
                               {"name", name_in(fmt::format("/proc/{}/task/{}/comm", id, thread))},
                               {"vcpu", vcpu->index},
                               {"state", state_of(*vcpu)}});
  }
  Json list = Json::array();
  for (auto& [id, json] : by_id) list.push_back(std::move(json));
  return list;
}

uint64_t root_of_process(uint64_t process_id) {
  for (const auto& [vcpu, process] : running()) {
    const uint64_t root = process->process_id == process_id ? space_root(vcpu->index) : 0;
    if (root != 0) return root;
  }
  return 0;
}

uint64_t process_of_root(uint64_t root) {
  for (const auto& [vcpu, process] : running()) {
    if (space_root(vcpu->index) == root) return process->process_id;
  }
  return 0;
}

}  // namespace dbos::vmm
