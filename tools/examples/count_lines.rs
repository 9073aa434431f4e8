// A runtime in Rust: counts the lines of a file, as `wc -l` does, on several vCPUs at once.
//
//   dbos-run --kernel count_lines.elf FILE
//
// The constants and structures are those of dbos/hypercall.h, as tools/gen-hypercall-abi prints them.
// There is no trap handler: nothing here faults, unless the file is cut while it is read.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[allow(dead_code)]
mod abi {
    include!(env!("DBOS_ABI"));
}

#[used]
#[link_section = ".note.dbos"]
static NOTE: abi::ImageNote = abi::ImageNote {
    name_size: 5,
    description_size: 16,
    r#type: abi::NOTE_TYPE,
    name: *b"DBOS\0\0\0\0",
    abi_version: abi::ABI_VERSION,
    flags: 0,
    features_low: 0,
    features_high: 0,
};

// Numbers of Linux.
const WRITE: u32 = 1;
const CLOSE: u32 = 3;
const FSTAT: u32 = 5;
const OPENAT: u32 = 257;
const AT_FDCWD: u64 = -100i64 as u64;
const PROT_READ: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const CLOCK_MONOTONIC: u64 = 1;

// --- Calls ---------------------------------------------------------------------------------------

type Request<'a> = (u32, &'a [u64]);

// The vCPU that runs this has its stack and its hypercall page in one block.
fn own_page() -> *mut abi::HypercallPage {
    let stack: u64;
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack)) };
    (stack / abi::VCPU_STRIDE * abi::VCPU_STRIDE + abi::VCPU_HYPERCALL_OFFSET) as *mut _
}

// Makes several calls with one exit. Answers how many were made.
fn call_all(requests: &[Request], results: &mut [i64]) -> usize {
    assert!(requests.len() <= abi::CALL_BATCH_MAX as usize && results.len() >= requests.len());
    let page = own_page();
    unsafe {
        for (i, (number, given)) in requests.iter().enumerate() {
            let mut arguments = [0; 6];
            arguments[..given.len()].copy_from_slice(given);
            (*page).calls[i] = abi::Call { number: *number, flags: 0, arguments, result: 0 };
        }
        (*page).call_count = requests.len() as u32;
        asm!("out dx, al", in("dx") abi::HYPERCALL_PORT as u16, in("al") 0u8);
        let done = (*page).calls_done as usize;
        for i in 0..done {
            results[i] = (*page).calls[i].result;
        }
        done
    }
}

fn call(number: u32, arguments: &[u64]) -> i64 {
    let mut result = [0];
    call_all(&[(number, arguments)], &mut result);
    result[0]
}

// The guest-physical address of what lies in the image, on a vCPU's stack or in the direct map.
fn physical<T>(pointer: *const T) -> u64 {
    let address = pointer as u64;
    if address >= abi::IMAGE_BASE {
        address - abi::IMAGE_BASE + abi::IMAGE_ADDRESS
    } else if address >= abi::VCPU_MAP_BASE {
        address - abi::VCPU_MAP_BASE + abi::VCPU_REGION_BASE
    } else {
        address - abi::DIRECT_MAP_BASE
    }
}

fn print(descriptor: u64, mut text: &[u8]) {
    while !text.is_empty() {
        let length = text.len() as u64;
        let result = call(WRITE, &[descriptor, physical(text.as_ptr()), length]);
        if result <= 0 {
            return;
        }
        text = &text[result as usize..];
    }
}

fn stop(status: u64) -> ! {
    loop {
        call(abi::SERVICE_EXIT, &[status, 0]);
    }
}

fn fail(why: &[u8]) -> ! {
    print(2, b"count_lines: ");
    print(2, why);
    print(2, b"\n");
    stop(1)
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    let text = b"count_lines: a bug";
    loop {
        call(abi::SERVICE_PANIC, &[physical(text.as_ptr()), text.len() as u64]);
    }
}

// --- The command line ----------------------------------------------------------------------------

fn boot() -> &'static abi::BootInformation {
    unsafe { &*((abi::DIRECT_MAP_BASE + abi::BOOT_INFORMATION_ADDRESS) as *const _) }
}

// The second argument, with its NUL.
fn file_name() -> &'static [u8] {
    let first = boot() as *const _ as u64 + boot().arguments_offset;
    let end = boot() as *const _ as u64 + boot().size;
    let text =
        unsafe { core::slice::from_raw_parts(first as *const u8, (end - first) as usize) };
    match text.split_inclusive(|byte| *byte == 0).nth(1) {
        Some(name) if boot().argument_count == 2 => name,
        _ => fail(b"name one file: dbos-run --kernel count_lines.elf FILE"),
    }
}

// --- Counting ------------------------------------------------------------------------------------

const WORKERS: usize = 4;

struct Job {
    begin: AtomicU64,
    size: AtomicU64,
    lines: AtomicU64,
}

#[allow(clippy::declare_interior_mutable_const)]
const NO_JOB: Job = Job { begin: AtomicU64::new(0), size: AtomicU64::new(0), lines: AtomicU64::new(0) };
static JOBS: [Job; WORKERS] = [NO_JOB; WORKERS];
static RUNNING: AtomicU32 = AtomicU32::new(0);

// A further vCPU's whole life.
fn work(job: &Job) -> ! {
    let begin = job.begin.load(Ordering::Acquire) as *const u8;
    let size = job.size.load(Ordering::Acquire) as usize;
    let bytes = unsafe { core::slice::from_raw_parts(begin, size) };
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    job.lines.store(lines as u64, Ordering::Release);
    let is_last = RUNNING.fetch_sub(1, Ordering::AcqRel) == 1;
    loop {
        if is_last {
            // The end of the vCPU comes last in a batch.
            call_all(&[(abi::SERVICE_WAKE, &[0]), (abi::SERVICE_THREAD_EXIT, &[0])], &mut [0; 2]);
        }
        call(abi::SERVICE_THREAD_EXIT, &[0]);
    }
}

// Each vCPU gets a share of `size` bytes from `begin` on.
fn count(begin: u64, size: u64) -> u64 {
    RUNNING.store(WORKERS as u32, Ordering::Release);
    for (i, job) in JOBS.iter().enumerate() {
        let share = |n: usize| size * n as u64 / WORKERS as u64;
        job.begin.store(begin + share(i), Ordering::Release);
        job.size.store(share(i + 1) - share(i), Ordering::Release);
        if call(abi::SERVICE_THREAD_CREATE, &[job as *const Job as u64, 0]) < 0 {
            fail(b"no further vCPU");
        }
    }
    while RUNNING.load(Ordering::Acquire) != 0 {
        call(abi::SERVICE_PARK, &[u64::MAX, CLOCK_MONOTONIC]);
    }
    JOBS.iter().map(|job| job.lines.load(Ordering::Acquire)).sum()
}

fn print_number(number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    print(1, &digits[at..]);
}

fn run_first() -> ! {
    if boot().abi_version != abi::ABI_VERSION {
        fail(b"another version of the hypercall ABI");
    }
    let name = file_name();
    let file = call(OPENAT, &[AT_FDCWD, physical(name.as_ptr()), 0]);
    let mut status = [0u64; 18]; // struct stat; its size field is the seventh
    if file < 0 || call(FSTAT, &[file as u64, physical(status.as_mut_ptr())]) < 0 {
        fail(b"can't open the file");
    }
    let size = unsafe { core::ptr::read_volatile(&status[6]) };
    let mut lines = 0;
    if size != 0 {
        let window = call(abi::SERVICE_WINDOW_MAP, &[file as u64, 0, size, PROT_READ, MAP_PRIVATE]);
        if window < 0 {
            fail(b"can't map the file");
        }
        lines = count(abi::DIRECT_MAP_BASE + window as u64, size);
        let pages = (size + u64::from(abi::PAGE_SIZE) - 1) & !(u64::from(abi::PAGE_SIZE) - 1);
        let ends: [Request; 2] =
            [(abi::SERVICE_WINDOW_UNMAP, &[window as u64, pages]), (CLOSE, &[file as u64])];
        let mut results = [-1; 2];
        if call_all(&ends, &mut results) != 2 || results != [0, 0] {
            fail(b"can't let go of the file");
        }
    }
    print_number(lines);
    print(1, b" ");
    print(1, &name[..name.len() - 1]);
    print(1, b"\n");
    stop(0)
}

// Every vCPU begins here, on its kernel stack: RDI and RSI are the arguments. Compiled code uses SSE,
// which is the guest's to turn on (CR4.OSFXSR, OSXMMEXCPT).
global_asm!(
    ".globl _start",
    "_start: mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "call run",
    // What the compiler expects of a C library.
    ".globl memcpy",
    "memcpy: mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".globl memset",
    "memset: mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
);

#[no_mangle]
extern "C" fn run(_vcpu: u64, start_argument: u64) -> ! {
    if start_argument != 0 {
        work(unsafe { &*(start_argument as *const Job) });
    }
    run_first()
}
