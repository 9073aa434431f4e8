#include "guest/process/extended_state.h"

#include "guest/lib/assert.h"
#include "guest/lib/cpuid.h"

namespace dbos {

namespace {

// Offsets and numbers: Intel SDM volume 1, chapter 13; Linux uapi/asm/sigcontext.h.
constexpr u64 kLegacySize = kExtendedStateLegacySize;
constexpr u64 kHeaderSize = 64;
constexpr u64 kSoftwareOffset = 464;
constexpr u64 kMxcsrOffset = 24;
constexpr u64 kMxcsrMaskOffset = 28;
constexpr u32 kMagic1 = 0x46505853;
constexpr u32 kMagic2 = 0x46505845;
constexpr u16 kInitialControlWord = 0x37f;
constexpr u32 kInitialMxcsr = 0x1f80;
constexpr u32 kDefaultMxcsrMask = 0xffbf;  // where FXSAVE stores 0
constexpr u64 kLegacyFeatures = 3;         // x87 and SSE
// AMX's tiles, which Linux gives to who asks for them (arch_prctl(2)): not in a frame before.
constexpr u64 kFeaturesOnRequest = 1 << 18;

struct SoftwareBytes {  // struct _fpx_sw_bytes
  u32 magic1;
  u32 extended_size;
  u64 features;
  u32 state_size;
  u32 padding[7];
};
static_assert(sizeof(SoftwareBytes) == 48);

struct Header {
  u64 features;  // XSTATE_BV
  u64 compacted_features;
  u64 reserved[6];
};
static_assert(sizeof(Header) == kHeaderSize);

struct Layout {
  u64 features;  // XCR0, or x87 and SSE
  u32 size;
  u32 mxcsr_mask;
  bool xsave;
};

u32 find_mxcsr_mask() {
  alignas(16) u8 area[kLegacySize] = {};
  asm volatile("fxsave64 %0" : "+m"(area) : : "memory");
  u32 mask;
  __builtin_memcpy(&mask, area + kMxcsrMaskOffset, sizeof mask);
  return mask != 0 ? mask : kDefaultMxcsrMask;
}

// Of an area in standard format that has these features.
u32 area_size(u64 features) {
  u32 size = kLegacySize + kHeaderSize;
  for (u32 i = 2; features >> i != 0; ++i) {
    if ((features >> i & 1) == 0) continue;
    const CpuidResult place = cpuid(0xd, i);  // EBX: where, EAX: how long
    if (place.ebx + place.eax > size) size = place.ebx + place.eax;
  }
  return size;
}

Layout find_layout() {
  constexpr u32 kOsXsave = 1u << 27;  // CPUID's mirror of CR4.OSXSAVE
  const u32 mxcsr_mask = find_mxcsr_mask();
  if ((cpuid(1).ecx & kOsXsave) == 0)
    return Layout{kLegacyFeatures, kLegacySize, mxcsr_mask, false};
  u32 low;
  u32 high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const u64 features = (low | static_cast<u64>(high) << 32) & ~kFeaturesOnRequest;
  const u32 size = area_size(features);
  DBOS_ASSERT(size + sizeof kMagic2 <= kExtendedStateSizeMax);
  return Layout{features, size, mxcsr_mask, true};
}

// The same on every vCPU. CPUID exits to the hypervisor, so it is asked once; two vCPUs that ask at
// the same time store the same.
const Layout& layout() {
  static constinit Layout found{};
  // Not <atomic>: Clang can't compile it without the registers that this file must leave alone.
  static constinit bool known = false;
  if (!__atomic_load_n(&known, __ATOMIC_ACQUIRE)) {
    found = find_layout();
    __atomic_store_n(&known, true, __ATOMIC_RELEASE);
  }
  return found;
}

template <typename T>
T& field(ExtendedStateBuffer& buffer, u64 offset) {
  return *reinterpret_cast<T*>(buffer.bytes + offset);
}

void load_xsave(const void* area, u64 features) {
  asm volatile("xrstor64 %0"
               :
               : "m"(*static_cast<const u8*>(area)), "a"(static_cast<u32>(features)),
                 "d"(static_cast<u32>(features >> 32))
               : "memory");
}
void load_fxsave(const void* area) {
  asm volatile("fxrstor64 %0" : : "m"(*static_cast<const u8*>(area)) : "memory");
}

struct alignas(kExtendedStateAlignment) InitialState {
  u16 control_word = kInitialControlWord;
  u16 before_mxcsr[11] = {};
  u32 mxcsr = kInitialMxcsr;
  u32 rest[(kLegacySize - 28) / 4] = {};
  Header header{};
};
static_assert(offsetof(InitialState, mxcsr) == kMxcsrOffset);
static_assert(offsetof(InitialState, header) == kLegacySize);
constinit const InitialState initial_state{};

// As the software bytes of a whole XSAVE area say; 0: they describe none.
u32 announced_state_size(ExtendedStateBuffer& buffer) {
  const Layout& area = layout();
  const SoftwareBytes& software = field<SoftwareBytes>(buffer, kSoftwareOffset);
  const bool sound = area.xsave && software.magic1 == kMagic1 &&
                     software.state_size >= kLegacySize + kHeaderSize &&
                     software.state_size <= area.size &&
                     software.state_size <= software.extended_size;
  return sound ? software.state_size : 0;
}

bool has_second_magic(ExtendedStateBuffer& buffer, u32 state_size) {
  u32 magic;
  __builtin_memcpy(&magic, buffer.bytes + state_size, sizeof magic);
  return magic == kMagic2;
}

}  // namespace

bool has_xsave() {
  return layout().xsave;
}

u64 extended_state_frame_size() {
  const Layout& area = layout();
  return area.size + (area.xsave ? sizeof kMagic2 : 0);
}

void save_extended_state(ExtendedStateBuffer& buffer) {
  const Layout& area = layout();
  if (!area.xsave) {
    asm volatile("fxsave64 %0" : "=m"(buffer.bytes) : : "memory");
    __builtin_memset(buffer.bytes + kSoftwareOffset, 0, sizeof(SoftwareBytes));
    return;
  }
  // XSAVE leaves gaps between the components; nothing of the kernel's stack may show there.
  __builtin_memset(buffer.bytes, 0, area.size);
  asm volatile("xsave64 %0"
               : "+m"(buffer.bytes)
               : "a"(static_cast<u32>(area.features)), "d"(static_cast<u32>(area.features >> 32))
               : "memory");
  field<SoftwareBytes>(buffer, kSoftwareOffset) = SoftwareBytes{
      .magic1 = kMagic1,
      .extended_size = area.size + static_cast<u32>(sizeof kMagic2),
      .features = area.features,
      .state_size = area.size,
      .padding = {},
  };
  __builtin_memcpy(buffer.bytes + area.size, &kMagic2, sizeof kMagic2);
  // As Linux does for programs that know FXSAVE only and change these two.
  field<Header>(buffer, kLegacySize).features |= kLegacyFeatures;
}

u64 extended_state_size_of(ExtendedStateBuffer& legacy_part) {
  const u32 size = announced_state_size(legacy_part);
  return size == 0 ? kLegacySize : size + sizeof kMagic2;
}

bool restore_extended_state(ExtendedStateBuffer& buffer) {
  const Layout& area = layout();
  // FXRSTOR and XRSTOR raise #GP for what is checked here; Linux lets them and mends the fault.
  if ((field<u32>(buffer, kMxcsrOffset) & ~area.mxcsr_mask) != 0) {
    reset_extended_state();
    return false;
  }
  if (!area.xsave) {
    load_fxsave(buffer.bytes);
    return true;
  }
  const SoftwareBytes& software = field<SoftwareBytes>(buffer, kSoftwareOffset);
  const bool complete =
      announced_state_size(buffer) != 0 && has_second_magic(buffer, software.state_size);
  if (!complete) {
    load_xsave(&initial_state, area.features);
    load_fxsave(buffer.bytes);
    return true;
  }
  const Header& header = field<Header>(buffer, kLegacySize);
  if ((header.features & ~area.features) != 0 || header.compacted_features != 0 ||
      header.reserved[0] != 0) {
    reset_extended_state();
    return false;
  }
  const u64 restored = software.features & area.features;
  load_xsave(buffer.bytes, restored);
  if (restored != area.features) load_xsave(&initial_state, area.features & ~restored);
  return true;
}

void reset_extended_state() {
  const Layout& area = layout();
  if (area.xsave) {
    load_xsave(&initial_state, area.features);
  } else {
    load_fxsave(&initial_state);
  }
}

}  // namespace dbos
