#include "vmm/debug/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "hypercall/layout.h"

namespace dbos::vmm {
namespace {

constexpr size_t kAvxStateSize = 832;    // with the header and ymm's upper halves
constexpr size_t kFeaturesOffset = 464;  // where Linux puts XCR0, and gdb looks for it
constexpr uint64_t kFeaturesKnown = 7;   // x87, SSE, AVX
constexpr size_t kHeadersMax = PN_XNUM - 1;
constexpr uint32_t kNoteAlignment = 4;

struct Image {
  std::vector<Elf64_Phdr> headers;
  std::string notes;
};

void pad(std::string* text) {
  while (text->size() % kNoteAlignment != 0) *text += '\0';
}

void add_note(std::string* notes, uint32_t type, const char* owner, const void* data, size_t size) {
  const Elf64_Nhdr header = {static_cast<uint32_t>(std::strlen(owner) + 1),
                             static_cast<uint32_t>(size), type};
  notes->append(reinterpret_cast<const char*>(&header), sizeof header);
  notes->append(owner, header.n_namesz);
  pad(notes);
  notes->append(static_cast<const char*>(data), size);
  pad(notes);
}

elf_prstatus status_of(const CoreProgram& program, const CoreThread& thread) {
  const ProgramFrame& f = thread.registers.general;
  elf_prstatus status = {};
  status.pr_pid = static_cast<pid_t>(thread.thread_id);
  status.pr_cursig = static_cast<short>(program.signal);
  status.pr_info.si_signo = program.signal;
  status.pr_fpvalid = thread.registers.has_special ? 1 : 0;
  // user_regs_struct's order (sys/user.h).
  const uint64_t values[] = {f.r15,
                             f.r14,
                             f.r13,
                             f.r12,
                             f.rbp,
                             f.rbx,
                             f.r11,
                             f.r10,
                             f.r9,
                             f.r8,
                             f.rax,
                             f.rcx,
                             f.rdx,
                             f.rsi,
                             f.rdi,
                             static_cast<uint64_t>(thread.registers.system_call()),
                             f.rip,
                             f.cs,
                             f.rflags,
                             f.rsp,
                             f.ss,
                             thread.registers.fs_base,
                             thread.registers.gs_base,
                             0,
                             0,
                             0,
                             0};
  static_assert(sizeof values == sizeof status.pr_reg);
  std::memcpy(status.pr_reg, values, sizeof values);
  return status;
}

void add_thread(std::string* notes, const CoreProgram& program, const CoreThread& thread) {
  const elf_prstatus status = status_of(program, thread);
  add_note(notes, NT_PRSTATUS, "CORE", &status, sizeof status);
}

void add_extended_state(std::string* notes, const CoreProgram& program, const CoreThread& thread) {
  if (!thread.registers.has_special) return;
  std::array<uint8_t, kAvxStateSize> state = {};
  std::memcpy(state.data(), thread.registers.extended.data(), state.size());
  add_note(notes, NT_FPREGSET, "CORE", state.data(), kExtendedStateLegacySize);
  const uint64_t features = program.extended_features & kFeaturesKnown;
  std::memcpy(&state[kFeaturesOffset], &features, sizeof features);
  add_note(notes, NT_X86_XSTATE, "LINUX", state.data(), state.size());
}

elf_prpsinfo description_of(const CoreProgram& program) {
  elf_prpsinfo information = {};
  information.pr_pid = static_cast<pid_t>(program.process_id);
  information.pr_sname = 'R';
  const std::string name = program.path.substr(program.path.rfind('/') + 1);
  name.copy(information.pr_fname, sizeof information.pr_fname - 1);
  program.path.copy(information.pr_psargs, sizeof information.pr_psargs - 1);
  return information;
}

// NT_FILE: count, page size, then begin, end and offset in pages of each, then the names.
std::string file_note(const std::vector<DebugMapping>& mappings) {
  std::vector<uint64_t> numbers = {0, kPageSize};
  std::string names;
  for (const DebugMapping& mapping : mappings) {
    if (mapping.path[0] != '/') continue;
    ++numbers[0];
    numbers.insert(numbers.end(), {mapping.begin, mapping.end, mapping.file_offset / kPageSize});
    names.append(mapping.path, strnlen(mapping.path, sizeof mapping.path));
    names += '\0';
  }
  return std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size() * 8) + names;
}

std::string make_notes(const CoreProgram& program) {
  std::string notes;
  // gdb takes the process's notes for those of the thread before them.
  for (size_t i = 0; i < program.threads.size(); ++i) {
    add_thread(&notes, program, program.threads[i]);
    if (i == 0) {
      const elf_prpsinfo description = description_of(program);
      add_note(&notes, NT_PRPSINFO, "CORE", &description, sizeof description);
      add_note(&notes, NT_AUXV, "CORE", program.auxiliary_vector.data(),
               program.auxiliary_vector.size());
      const std::string files = file_note(program.mappings);
      add_note(&notes, NT_FILE, "CORE", files.data(), files.size());
    }
    add_extended_state(&notes, program, program.threads[i]);
  }
  return notes;
}

// Of what is shared only the vDSO, which gdb looks for in the core.
bool is_dumped(const DebugMapping& mapping) {
  const bool is_vdso = std::strcmp(mapping.path, "[vdso]") == 0;
  const bool is_kept = (mapping.flags & (kMappingShared | kMappingDontDump)) == 0 || is_vdso;
  return (mapping.protection & PROT_READ) != 0 && is_kept;
}

Image lay_out(const CoreProgram& program) {
  Image image;
  image.notes = make_notes(program);
  uint64_t offset = sizeof(Elf64_Ehdr) + (program.mappings.size() + 1) * sizeof(Elf64_Phdr);
  Elf64_Phdr note = {};
  note.p_type = PT_NOTE;
  note.p_offset = offset;
  note.p_filesz = image.notes.size();
  note.p_align = kNoteAlignment;
  image.headers.push_back(note);
  offset = align_up(offset + image.notes.size(), kPageSize);
  for (const DebugMapping& mapping : program.mappings) {
    Elf64_Phdr load = {};
    load.p_type = PT_LOAD;
    load.p_offset = offset;
    load.p_vaddr = mapping.begin;
    load.p_memsz = mapping.end - mapping.begin;
    load.p_filesz = is_dumped(mapping) ? load.p_memsz : 0;
    load.p_align = kPageSize;
    if ((mapping.protection & PROT_READ) != 0) load.p_flags |= PF_R;
    if ((mapping.protection & PROT_WRITE) != 0) load.p_flags |= PF_W;
    if ((mapping.protection & PROT_EXEC) != 0) load.p_flags |= PF_X;
    image.headers.push_back(load);
    offset += load.p_filesz;
  }
  return image;
}

Elf64_Ehdr make_header(size_t header_count) {
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(header_count);
  return header;
}

bool write_at(int descriptor, uint64_t offset, const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = pwrite(descriptor, bytes, size, static_cast<off_t>(offset));
    if (done == 0) errno = ENOSPC;
    if (done <= 0) return false;
    bytes += done;
    offset += static_cast<uint64_t>(done);
    size -= static_cast<size_t>(done);
  }
  return true;
}

bool write_memory(int descriptor, const DebugMapping& mapping, uint64_t offset,
                  const CoreReader& read) {
  std::array<uint8_t, kPageSize> page;
  for (uint64_t address = mapping.begin; address < mapping.end;) {
    const uint64_t absent = read(mapping, address, page.data(), page.size());
    if (absent >= mapping.end - address) return true;
    if (absent == 0 &&
        !write_at(descriptor, offset + (address - mapping.begin), page.data(), page.size())) {
      return false;
    }
    address += absent == 0 ? page.size() : absent;
  }
  return true;
}

// Empty: this file may be one.
std::string why_no_core(int descriptor) {
  struct stat file = {};
  if (fstat(descriptor, &file) != 0) return std::strerror(errno);
  // A pipe that nobody reads would hold the program for good.
  if (!S_ISREG(file.st_mode)) return "that is no regular file";
  if (file.st_uid != geteuid()) return "that file belongs to another user";
  if (file.st_nlink != 1) return "that file has another name, too";
  // One that was there may be for others to read, as the memory is not. Linux refuses such a file;
  // a file system without modes (FAT) takes the new one and does not keep it.
  const bool is_private =
      fchmod(descriptor, 0600) == 0 && fstat(descriptor, &file) == 0 && (file.st_mode & 0177) == 0;
  return is_private ? "" : "that file can't be made one for its owner alone (chmod 600)";
}

std::string failure() {
  return std::string("writing the core failed: ") + std::strerror(errno);
}

}  // namespace

std::string write_core(int descriptor, const CoreProgram& program, const CoreReader& read) {
  if (program.mappings.size() + 1 > kHeadersMax) return "too many mappings for a core";
  const Image image = lay_out(program);
  const Elf64_Ehdr header = make_header(image.headers.size());
  const Elf64_Phdr& note = image.headers.front();
  const bool is_written =
      write_at(descriptor, 0, &header, sizeof header) &&
      write_at(descriptor, sizeof header, image.headers.data(),
               image.headers.size() * sizeof(Elf64_Phdr)) &&
      write_at(descriptor, note.p_offset, image.notes.data(), image.notes.size());
  if (!is_written) return failure();
  uint64_t end = note.p_offset + note.p_filesz;
  for (size_t i = 1; i < image.headers.size(); ++i) {
    const Elf64_Phdr& load = image.headers[i];
    end = load.p_offset + load.p_filesz;
    if (load.p_filesz == 0) continue;
    if (!write_memory(descriptor, program.mappings[i - 1], load.p_offset, read)) return failure();
  }
  return ftruncate(descriptor, static_cast<off_t>(end)) == 0 ? std::string() : failure();
}

CoreFile open_core_file(const std::string& path) {
  // What somebody else has put there is not ours to write: as Linux's own cores.
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
  CoreFile file;
  file.descriptor = open(path.c_str(), kFlags | O_EXCL, 0600);
  file.is_new = file.descriptor >= 0;
  if (!file.is_new && errno == EEXIST) file.descriptor = open(path.c_str(), kFlags, 0600);
  file.error = file.descriptor < 0 ? std::strerror(errno) : why_no_core(file.descriptor);
  if (file.error.empty() || file.descriptor < 0) return file;
  close(file.descriptor);
  return {-1, false, file.error};
}

}  // namespace dbos::vmm
