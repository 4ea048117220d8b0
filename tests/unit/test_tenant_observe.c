/* liblithos.so beside a daemon that the test plays: launch records, completion stamps, what they cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/quantile.h"
#include "base/ticks.h"
#include "stub/fake_daemon.h"

#define BOTH (LITHOS_OBSERVE_RECORDS | LITHOS_OBSERVE_STAMPS)
#define AS_IT_COMES (BOTH | LITHOS_OBSERVE_TICKS)

typedef CUresult (*ctx_fn)(CUcontext);
typedef CUresult (*device_fn)(CUdevice);
typedef CUresult (*graph_fn)(CUgraphExec, CUstream);

static launch_fn launch_kernel;

static void observed(uint32_t observe)
{
    fake.observe = observe;
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    launch_kernel = (launch_fn)OURS("cuLaunchKernel");
    CHECK_EQ(((ctx_fn)OURS("cuCtxSetCurrent"))((CUcontext)1), 0);
}

static CUresult launch_of(uintptr_t function, uintptr_t stream)
{
    return launch_kernel((CUfunction)function, 8, 2, 1, 32, 4, 1, 96, (CUstream)stream, NULL,
                         NULL); /* NOLINT: numbers */
}

/* The next record of any ring but names, in ring order; its kind, 0 when there is none. */
static int next_record(struct lithos_record *ret)
{
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++) {
        uint32_t lost;
        int r;
        do {
            r = lithos_record_get(&fake.arena->records, i, &fake.arena->record_tails[i], ret, &lost);
            CHECK(r >= 0);
        } while (r == 1 && ret->kind == LITHOS_RECORD_NAME);
        if (r == 1)
            return ret->kind;
    }
    return 0;
}

static int drain(void)
{
    struct lithos_record r;
    int n = 0;
    while (next_record(&r))
        n++;
    return n;
}

static uint64_t counted(enum lithos_counter c)
{
    return lithos_arena_counter(fake.arena, c);
}

/* The stamp of a record has come, with a time between its submission and now. */
static int stamped(const struct lithos_record *r)
{
    uint64_t time_ns;
    return r->launch.stamp && lithos_stamp_read(fake.arena->stamps, r->launch.stamp, &time_ns) == 1 &&
           time_ns >= r->submit_ns && time_ns <= lithos_now_ns();
}

/* ---- what a record says ---- */

static void fields(void)
{
    struct lithos_record r;
    struct lithos_tpcset quota;
    lithos_tpcset_parse("9-16", &quota);
    observed(BOTH);
    uint64_t before = lithos_now_ns();
    CHECK_EQ(launch_of(0x20, 0x99), 0);
    CHECK_EQ(next_record(&r), LITHOS_RECORD_LAUNCH);
    CHECK_EQ(r.sequence, 1);
    CHECK(r.submit_ns >= before && r.submit_ns <= lithos_now_ns());
    CHECK_EQ(r.function, 0x20);
    CHECK_EQ(r.stream, 0x99);
    CHECK(r.gpu == 0 && r.cluster == 1 && r.registers == 16 && r.flags == 0);
    CHECK(r.launch.grid[0] == 8 && r.launch.grid[1] == 2 && r.launch.block[1] == 4);
    CHECK_EQ(r.launch.shared_bytes, 96);
    CHECK(lithos_tpcset_equal(&r.launch.tpcs, &quota));
    CHECK(stamped(&r));
    CHECK_EQ(next_record(&r), 0);
    /* the per-thread default stream, a cooperative launch */
    CHECK_EQ(
        ((launch_fn)OURS("cuLaunchKernel_ptsz"))((CUfunction)0x20, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && r.stream == 2 && r.sequence == 2);
    CUlaunchAttribute together = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1};
    CUlaunchConfig config = {
        .gridDimX = 3, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 7, .attrs = &together, .numAttrs = 1};
    CHECK_EQ(((CUresult(*)(const CUlaunchConfig *, CUfunction, void **, void **))OURS("cuLaunchKernelEx"))(
                 &config, (CUfunction)0x20, NULL, NULL),
             0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && r.flags == LITHOS_RECORD_COOPERATIVE &&
          r.launch.grid[0] == 3);
    /* what is captured, or fails, is no launch */
    stub->capturing = 1;
    CHECK_EQ(launch_of(0x20, 0), 0);
    stub->capturing = 0;
    stub->launch_result = CUDA_ERROR_LAUNCH_FAILED;
    CHECK_EQ(launch_of(0x20, 0), CUDA_ERROR_LAUNCH_FAILED);
    stub->launch_result = 0;
    CHECK_EQ(next_record(&r), 0);
    /* the driver's own */
    CHECK_EQ(((CUresult(*)(CUdeviceptr, unsigned char, size_t))OURS("cuMemsetD8_v2"))(0, 1, 64), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_DRIVER && stamped(&r) && r.launch.block[0] == 32 && r.stream == 0);
    CHECK_EQ(
        ((CUresult(*)(CUdeviceptr, unsigned char, size_t, uintptr_t))OURS("cuMemsetD8Async"))(0, 1, 64, 0x99),
        0);
    CHECK(next_record(&r) == LITHOS_RECORD_DRIVER && r.stream == 0x99);
    CHECK_EQ(((CUresult(*)(CUdeviceptr, size_t, unsigned, size_t, size_t, uintptr_t))OURS(
                 "cuMemsetD2D32Async_ptsz"))(0, 64, 1, 2, 2, 0),
             0);
    CHECK(next_record(&r) == LITHOS_RECORD_DRIVER && r.stream == (uintptr_t)CU_STREAM_PER_THREAD);
    stub->load_uploads = 1; /* nobody's stream */
    CUmodule module;
    CHECK_EQ(((CUresult(*)(CUmodule *, const void *))OURS("cuModuleLoadData"))(&module, NULL), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_DRIVER && r.stream == UINT64_MAX);
    stub->load_uploads = 0;
    /* in ticks */
    atomic_store(&fake.arena->observe, BOTH | LITHOS_OBSERVE_TICKS);
    uint64_t before_ticks = lithos_ticks();
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && (r.flags & LITHOS_RECORD_TICKS));
    CHECK(r.submit_ns >= before_ticks && r.submit_ns + r.launch.call_ns <= lithos_ticks());
    atomic_store(&fake.arena->observe, BOTH);
    /* waiting */
    CUresult (*wait)(uintptr_t) = (CUresult(*)(uintptr_t))OURS("cuStreamSynchronize");
    CHECK_EQ(wait(0x99), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_SYNC && r.stream == 0x99);
    CHECK_EQ(((CUresult(*)(uintptr_t))OURS("cuStreamSynchronize_ptsz"))(0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_SYNC && r.stream == 2);
    CHECK_EQ(((CUresult(*)(void))OURS("cuCtxSynchronize"))(), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_SYNC && r.stream == LITHOS_RECORD_ALL_STREAMS);
    CHECK_EQ(((CUresult(*)(uintptr_t))OURS("cuEventSynchronize"))(1), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_SYNC && r.stream == LITHOS_RECORD_ALL_STREAMS);
    CHECK_EQ(((CUresult(*)(uintptr_t))OURS("cuEventSynchronize"))(0), CUDA_ERROR_INVALID_HANDLE);
    char byte, there = 5;
    CHECK_EQ(((CUresult(*)(void *, CUdeviceptr, size_t))OURS("cuMemcpyDtoH_v2"))(&byte, (uintptr_t)&there, 1),
             0);
    CHECK(byte == 5 && next_record(&r) == LITHOS_RECORD_SYNC && r.stream == LITHOS_RECORD_ALL_STREAMS);
    CHECK_EQ(next_record(&r), 0);
    CHECK_EQ(stub->faults, 0);
    /* nothing to be observed: nothing written */
    uint64_t records = counted(LITHOS_COUNTER_RECORDS);
    atomic_store(&fake.arena->observe, 0);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK_EQ(((CUresult(*)(void))OURS("cuCtxSynchronize"))(), 0);
    CHECK_EQ(counted(LITHOS_COUNTER_RECORDS), records);
    CHECK(
        !lithos_qmd_get(lithos_qmd_layout(LITHOS_QMD_V04_00), stub->last_qmd, LITHOS_QMD_RELEASE_ENABLE, 1));
    atomic_store(&fake.arena->observe, LITHOS_OBSERVE_RECORDS);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && !r.launch.stamp &&
          r.flags == LITHOS_RECORD_NO_STAMP_OFF);
    daemon_dies();
}

static void names(void)
{
    observed(LITHOS_OBSERVE_RECORDS);
    static const uintptr_t functions[] = {0x20, 0x40, 0x20, 0x51};
    char name[1024];
    struct lithos_record r;
    uint32_t lost, pieces = 0, launches = 0;
    for (int i = 0; i < 4; i++)
        CHECK_EQ(launch_of(functions[i], 0), 0);
    while (lithos_record_get(&fake.arena->records, 0, &fake.arena->record_tails[0], &r, &lost) == 1) {
        if (r.kind == LITHOS_RECORD_LAUNCH) {
            launches++;
            continue;
        }
        size_t bytes = LITHOS_MIN(sizeof r.name.text, (size_t)(r.name.total - r.name.offset));
        memcpy(name + r.name.offset, r.name.text, bytes);
        name[r.name.offset + bytes] = 0;
        pieces++;
        if (r.function == 0x20)
            CHECK(!strcmp(name, "function_20_0"));
        if (r.function == 0x51)
            CHECK(!strcmp(name, "a_kernel"));
        if (r.function == 0x40 && r.name.offset + bytes == r.name.total)
            CHECK(strlen(name) == strlen("function_40_") + 300 && !strncmp(name, "function_40_0", 13));
    }
    CHECK_EQ(launches, 4);
    CHECK_EQ(pieces, 1 + 4 + 1);
    daemon_dies();
}

/* A name that found no room is written at a later launch of its function. */
static void names_again(void)
{
    struct lithos_record r;
    uint32_t lost;
    observed(LITHOS_OBSERVE_RECORDS);
    while (!counted(LITHOS_COUNTER_LAUNCHES_DROPPED))
        CHECK_EQ(launch_of(0x20, 0), 0);
    uint64_t written = counted(LITHOS_COUNTER_RECORDS);
    CHECK_EQ(launch_of(0x60, 0), 0);
    CHECK_EQ(counted(LITHOS_COUNTER_RECORDS), written);
    CHECK_EQ(counted(LITHOS_COUNTER_RECORDS_DROPPED), 3); /* two launches and a name */
    CHECK_EQ(counted(LITHOS_COUNTER_LAUNCHES_DROPPED), 2);
    CHECK_EQ(drain(), written - 1);
    CHECK_EQ(launch_of(0x60, 0), 0);
    CHECK_EQ(lithos_record_get(&fake.arena->records, 0, &fake.arena->record_tails[0], &r, &lost), 1);
    CHECK(r.kind == LITHOS_RECORD_NAME && r.function == 0x60);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && r.function == 0x60);
    CHECK_EQ(launch_of(0x60, 0), 0);
    CHECK_EQ(lithos_record_get(&fake.arena->records, 0, &fake.arena->record_tails[0], &r, &lost), 1);
    CHECK_EQ(r.kind, LITHOS_RECORD_LAUNCH);
    daemon_dies();
}

/* WAKE messages that have come to the daemon's end of the connection. */
static int wakes_at(int sock)
{
    union lithos_message m;
    int n = 0;
    while (recv(sock, &m, sizeof m, MSG_DONTWAIT) == (ssize_t)sizeof m.h) {
        CHECK_EQ(lithos_message_validate(&m, sizeof m.h, NULL), 0);
        CHECK_EQ(m.h.type, LITHOS_MSG_WAKE);
        n++;
    }
    return n;
}

static void wakes(void)
{
    observed(LITHOS_OBSERVE_RECORDS);
    for (int i = 0; i < 5000 && fake.sock < 0; i++)
        usleep(1000);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK_EQ(wakes_at(fake.sock), 0); /* nobody asked */
    for (int i = 0; i < 3; i++) {
        lithos_record_ask(&fake.arena->records, true);
        errno = ENOTTY;
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK_EQ(errno, ENOTTY);
        CHECK_EQ(wakes_at(fake.sock), 1);
    }
    /* also when there is no room: a reader that sleeps on is what that comes from */
    while (!counted(LITHOS_COUNTER_RECORDS_DROPPED))
        CHECK_EQ(launch_of(0x20, 0), 0);
    lithos_record_ask(&fake.arena->records, true);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK_EQ(wakes_at(fake.sock), 1);
    /* an app that closes what it does not know, and has its own there now: nothing is written into that */
    int own[2], ours = -1;
    struct stat st;
    for (int fd = 3; fd < 256 && ours < 0; fd++)
        if (fd != fake.sock && fd != fake.listener && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
            ours = fd;
    CHECK(ours >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, own) == 0 && dup2(own[0], ours) == ours);
    lithos_record_ask(&fake.arena->records, true);
    errno = ENOTTY;
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK_EQ(errno, ENOTTY);
    CHECK(wakes_at(own[1]) == 0 && wakes_at(fake.sock) == 0);
    daemon_dies();
}

static void graphs(void)
{
    struct lithos_record r;
    uint64_t node[3], time_ns, again_ns;
    observed(BOTH);
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    for (int i = 0; i < 3; i++) {
        CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && r.launch.graph == 0x5000 && r.stream == 0x9);
        CHECK(stamped(&r));
        node[i] = r.launch.stamp;
        CHECK(node[i] % LITHOS_STAMP_SLOTS >= LITHOS_STAMP_PLAIN_SLOTS);
    }
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH && r.launch.graph == 0x5000 && r.stream == 0x9);
    CHECK(fake.arena->graphs_begun == 1 && fake.arena->graphs_given == 1);
    CHECK_EQ(lithos_stamp_read(fake.arena->stamps, node[0], &time_ns), 1);
    /* a node that was changed is made again from the QMD that it had, and keeps its slot */
    stub->again = stub->qmds_per_graph = 1;
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && r.launch.graph == 0x5000);
    CHECK(r.launch.stamp == node[2] && r.flags == LITHOS_RECORD_NODE_CHANGED);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH);
    /* switched off, and on again */
    uint64_t of_graphs = counted(LITHOS_COUNTER_GRAPH_QMDS), stamps = counted(LITHOS_COUNTER_STAMPS);
    stub->empty_grid = 1;
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && r.launch.graph == 0x5000 && r.launch.grid[0] == 0);
    CHECK(r.launch.stamp == node[2] && r.flags == LITHOS_RECORD_NODE_CHANGED);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH);
    CHECK(counted(LITHOS_COUNTER_GRAPH_QMDS) == of_graphs && counted(LITHOS_COUNTER_STAMPS) == stamps);
    stub->empty_grid = 0;
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && r.launch.grid[0] == 4 && r.launch.stamp == node[2]);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH);
    /* one of the driver's own says nothing */
    stub->again = 0;
    stub->empty_grid = 1;
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    CHECK_EQ(next_record(&r), LITHOS_RECORD_GRAPH_LAUNCH);
    CHECK_EQ(next_record(&r), 0);
    stub->empty_grid = 0;
    stub->qmds_per_graph = 3;
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5000, (CUstream)0x9), 0);
    for (int i = 0; i < 3; i++)
        CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && stamped(&r));
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH);
    stub->again = stub->qmds_per_graph = 1;
    /* that slot is not another graph's */
    CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)0x5001, (CUstream)0x9), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_NODE && r.flags == LITHOS_RECORD_NO_STAMP_TAKEN);
    CHECK(next_record(&r) == LITHOS_RECORD_GRAPH_LAUNCH);
    stub->again = 0;
    stub->qmds_per_graph = 3;
    uint64_t dropped = counted(LITHOS_COUNTER_STAMPS_DROPPED);
    /* launches come and go: the nodes' slots stay theirs */
    for (unsigned i = 0; i < 2 * LITHOS_STAMP_PLAIN_SLOTS; i++) {
        CHECK_EQ(launch_of(0x20, 0), 0);
        if (i % 512 == 0)
            drain();
    }
    drain();
    CHECK_EQ(lithos_stamp_read(fake.arena->stamps, node[0], &again_ns), 1);
    CHECK_EQ(time_ns, again_ns);
    /* more nodes than there are slots, then they are given back */
    const unsigned node_slots = LITHOS_STAMP_STOP_SLOT - LITHOS_STAMP_PLAIN_SLOTS,
                   graphs = node_slots / 500 + 2;
    stub->qmds_per_graph = 500;
    for (unsigned g = 0; g < graphs; g++) {
        CHECK_EQ(((graph_fn)OURS("cuGraphLaunch"))((CUgraphExec)(uintptr_t)(0x6000 + g), NULL), 0);
        while (next_record(&r))
            CHECK(r.kind == LITHOS_RECORD_GRAPH_LAUNCH || stamped(&r) ||
                  (g >= graphs - 2 && r.flags == LITHOS_RECORD_NO_STAMP_FULL));
    }
    CHECK_EQ(counted(LITHOS_COUNTER_STAMPS_DROPPED) - dropped, graphs * 500 + 6 - node_slots);
    for (unsigned g = 0; g < graphs; g++)
        CHECK_EQ(((CUresult(*)(uintptr_t))OURS("cuGraphExecDestroy"))(0x6000 + g), 0);
    CUgraphExec made = NULL;
    CUresult (*make)(CUgraphExec *, CUgraph, unsigned long long) =
        (CUresult(*)(CUgraphExec *, CUgraph, unsigned long long))OURS("cuGraphInstantiateWithFlags");
    const unsigned uploads = LITHOS_SANITIZED ? 20 : node_slots / 500 + 12;
    for (unsigned i = 0; i < uploads; i++) { /* uploads at once, each time given back */
        CHECK_EQ(make(&made, NULL, 2), 0);
        while (next_record(&r))
            CHECK(stamped(&r) && r.launch.graph == 0);
        CHECK_EQ(((CUresult(*)(CUgraphExec))OURS("cuGraphExecDestroy"))(made), 0);
    }
    CHECK_EQ(stub->faults, 0);
    daemon_dies();
}

/* ---- stamps ---- */

static void slots(void)
{
    struct lithos_record r;
    observed(BOTH);
    for (unsigned i = 0; i < (LITHOS_SANITIZED ? 2u : 4u) * LITHOS_STAMP_PLAIN_SLOTS; i++) {
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r));
    }
    /* kernels that take their time: each slot once, then none */
    stub->no_stamps = 1;
    const unsigned more = 4096;
    unsigned given = 0;
    for (unsigned i = 0; i < LITHOS_STAMP_PLAIN_SLOTS + more; i++) {
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK_EQ(next_record(&r), LITHOS_RECORD_LAUNCH);
        CHECK(r.launch.stamp ? r.flags == 0 : r.flags == LITHOS_RECORD_NO_STAMP_FULL);
        given += r.launch.stamp != 0;
    }
    CHECK_EQ(given, LITHOS_STAMP_PLAIN_SLOTS);
    CHECK_EQ(counted(LITHOS_COUNTER_STAMPS_DROPPED), more);
    daemon_dies();
}

static void taken_or_failed(void)
{
    struct lithos_record r;
    observed(BOTH);
    stub->taken = 1;
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && !r.launch.stamp &&
          r.flags == LITHOS_RECORD_NO_STAMP_TAKEN);
    CHECK_EQ(counted(LITHOS_COUNTER_STAMPS_DROPPED), 1);
    stub->taken = 0;
    /* launches that fail give their slots back */
    stub->no_stamps = 1;
    stub->launch_result = CUDA_ERROR_LAUNCH_FAILED;
    for (unsigned i = 0; i < 2 * LITHOS_STAMP_PLAIN_SLOTS; i++)
        launch_of(0x20, 0);
    stub->launch_result = 0;
    stub->no_stamps = 0;
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r));
    CHECK_EQ(counted(LITHOS_COUNTER_STAMPS_DROPPED), 1);
    daemon_dies();
}

/* A stamp goes nowhere but into memory that is registered, whatever contexts come and go. */
static void contexts(void)
{
    struct lithos_record r;
    ctx_fn set = (ctx_fn)OURS("cuCtxSetCurrent"), destroy = NULL;
    (void)set;
    observed(BOTH);
    set = (ctx_fn)OURS("cuCtxSetCurrent");
    destroy = (ctx_fn)OURS("cuCtxDestroy_v2");
    device_fn release = (device_fn)OURS("cuDevicePrimaryCtxRelease_v2");
    device_fn reset = (device_fn)OURS("cuDevicePrimaryCtxReset_v2");
    CHECK_EQ(set(NULL), 0);
    CHECK_EQ(launch_of(0x20, 0), 0); /* nobody's context: no stamp */
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && !r.launch.stamp && stub->registrations == 0);
    CHECK_EQ(set((CUcontext)1), 0);
    stub->capturing = 1; /* the first launch is captured: registering does not spoil that */
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK_EQ(stub->registrations, 1);
    CHECK_EQ(stub->capture_spoiled, 0);
    stub->capturing = 0;
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r));
    CHECK_EQ(set((CUcontext)2),
             0); /* a second context has a registration of its own, but for the first launch there */
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && r.flags == LITHOS_RECORD_NO_STAMP_OFF);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r) && stub->registrations == 2);
    CHECK_EQ(destroy((CUcontext)2), 0);
    CHECK_EQ(stub->registrations, 1);
    CHECK_EQ(launch_of(0x20, 0), 0); /* the next one has the same handle */
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r) && stub->registrations == 2);
    CHECK_EQ(set((CUcontext)1), 0);
    stub->primary_holders = 1; /* somebody else holds it: nothing ends */
    CHECK_EQ(release(0), 0);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r) && stub->registrations == 2);
    CHECK_EQ(release(0), 0);
    CHECK_EQ(stub->registrations, 1);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r) && stub->registrations == 2);
    for (int i = 0; i < 100; i++) { /* there is an end to it, and it is not a fault */
        CHECK_EQ(reset(0), 0);
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK_EQ(next_record(&r), LITHOS_RECORD_LAUNCH);
        CHECK(stamped(&r) || (i > 50 && r.flags == LITHOS_RECORD_NO_STAMP_OFF));
    }
    CHECK_EQ(stub->faults, 0);
    daemon_dies();
}

static void refused(void)
{
    struct lithos_record r;
    observed(BOTH);
    stub->register_result = CUDA_ERROR_NOT_SUPPORTED;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(launch_of(0x20, 0), 0);
        CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && !r.launch.stamp &&
              r.flags == LITHOS_RECORD_NO_STAMP_OFF);
    }
    CHECK_EQ(stub->stamps_written, 0);
    daemon_dies();
}

static void switched_off(void)
{
    struct lithos_record r;
    setenv("LITHOS_STAMPS", "off", 1);
    observed(BOTH);
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && r.flags == LITHOS_RECORD_NO_STAMP_OFF);
    CHECK_EQ(stub->registrations, 0);
    daemon_dies();
}

/* lithosd goes and comes: stamps under way go to the old pages, new ones to the new. */
static void reattaches(void)
{
    struct lithos_record r;
    observed(BOTH);
    stub->no_stamps = 1;
    for (int i = 0; i < 5; i++)
        CHECK_EQ(launch_of(0x20, 0), 0);
    stub->no_stamps = 0;
    for (int round = 1; round <= 3; round++) {
        daemon_dies();
        usleep(50000);
        CHECK_EQ(launch_of(0x20, 0), 0); /* nobody reads: written, not waited for */
        daemon_starts(GOOD, "9-16");
        wait_for_attach();
        CHECK_EQ(launch_of(0x20, 0), 0);
        uint32_t lost; /* who reads now knows no names yet: in the ring of the thread, the first */
        CHECK_EQ(lithos_record_get(&fake.arena->records, 0, &fake.arena->record_tails[0], &r, &lost), 1);
        CHECK(r.kind == LITHOS_RECORD_NAME && r.function == 0x20);
        CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r));
        CHECK_EQ(stub->registrations, round + 1);
        CHECK_EQ(counted(LITHOS_COUNTER_STAMPS_DROPPED), 5);
        CHECK(fake.arena->records.ring[r.launch.thread].thread_id == (uint32_t)gettid());
    }
    CHECK_EQ(stub->faults, 0);
    daemon_dies();
}

/* ---- threads ---- */

static void nothing(const struct lithos_tpcset *set, int masked)
{
    (void)set, (void)masked;
}

static void *launch_some(void *unused)
{
    CHECK_EQ(((ctx_fn)OURS("cuCtxSetCurrent"))((CUcontext)1), 0);
    for (int i = 0; i < 2000; i++)
        CHECK_EQ(launch_of(0x1000 + 2 * (uintptr_t)(i % 50), 0), 0);
    return unused;
}

enum { COUNT = 24 };

/* Reads what there is; no sequence comes twice. */
static void read_once_each(uint64_t *got, uint64_t *with_stamp)
{
    static uint8_t seen[COUNT * 2000 + 2];
    struct lithos_record r;
    while (next_record(&r)) {
        CHECK(r.sequence <= COUNT * 2000 && !seen[r.sequence]);
        seen[r.sequence] = 1;
        ++*got;
        *with_stamp += r.launch.stamp != 0;
    }
}

static void threads(void)
{
    pthread_t thread[COUNT];
    uint64_t got = 0, with_stamp = 0;
    observed(BOTH);
    stub->on_mask = nothing;
    for (int i = 0; i < COUNT; i++)
        CHECK(!pthread_create(&thread[i], NULL, launch_some, NULL));
    for (int i = 0; i < COUNT; i++) {
        while (pthread_tryjoin_np(thread[i], NULL) != 0)
            read_once_each(&got, &with_stamp);
    }
    read_once_each(&got, &with_stamp);
    CHECK(got > 0 && with_stamp > 0);
    CHECK_EQ(counted(LITHOS_COUNTER_LAUNCHES), COUNT * 2000);
    CHECK(counted(LITHOS_COUNTER_RECORDS) + counted(LITHOS_COUNTER_RECORDS_DROPPED) >= COUNT * 2000);
    CHECK(got <= counted(LITHOS_COUNTER_RECORDS)); /* names are records too */
    CHECK_EQ(stub->faults, 0);
    /* the rings are free again: of threads one after another each finds one */
    uint64_t dropped = counted(LITHOS_COUNTER_RECORDS_DROPPED);
    for (int i = 0; i < 2 * (int)LITHOS_RECORD_RINGS; i++) {
        pthread_t one;
        CHECK(!pthread_create(&one, NULL, launch_some, NULL));
        while (pthread_tryjoin_np(one, NULL) != 0)
            drain();
        if (counted(LITHOS_COUNTER_RECORDS_DROPPED) > dropped + 1000 * (unsigned)(i + 1))
            break; /* a slow reader drops too, but never all of them */
    }
    CHECK(counted(LITHOS_COUNTER_RECORDS) > 2 * LITHOS_RECORD_RINGS * 1000u);
    daemon_dies();
}

/* Launches while lithosd goes and comes: no fault, no crash, no data race. */
static void threads_reattach(void)
{
    pthread_t thread[3];
    observed(BOTH);
    stub->on_mask = nothing;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 3; i++)
            CHECK(!pthread_create(&thread[i], NULL, launch_some, NULL));
        for (int i = 0; i < 20; i++) { /* who wakes a daemon that goes writes to nobody else's descriptor */
            lithos_record_ask(&fake.arena->records, true);
            usleep(50);
        }
        daemon_dies();
        daemon_starts(GOOD, "9-16");
        for (int i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
        wait_for_attach();
    }
    CHECK_EQ(stub->faults, 0);
    struct lithos_record r;
    drain();
    CHECK_EQ(launch_of(0x20, 0), 0);
    CHECK(next_record(&r) == LITHOS_RECORD_LAUNCH && stamped(&r));
    daemon_dies();
}

/* ---- cost ---- */

static double best_ns(uint32_t observe)
{
    double best = 1e9;
    atomic_store(&fake.arena->observe, observe);
    for (int round = 0; round < 40; round++) {
        uint64_t start = lithos_now_ns();
        for (int i = 0; i < 800; i++)
            launch_of(0x20, 0);
        best = LITHOS_MIN(best, (double)(lithos_now_ns() - start) / 800);
        drain();
    }
    return best;
}

/* What a program does between two launches, as far as caches are concerned: nothing that a launch needs is left in the first two levels,
 * neither code nor data. */
#define ELSEWHERE (4u << 20)
/* More pages than there are translations kept, of little memory: only their translations come and go. */
#define PAGES (96u << 20)
#define PAGES_OF (256u << 10)

struct elsewhere {
    uint8_t *data, *code, *pages;
    bool wide; /* the pages are looked at as well */
};

static uint8_t *pages_make(void)
{
    int fd = memfd_create("pages", MFD_CLOEXEC);
    uint8_t *pages = mmap(NULL, PAGES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(fd >= 0 && ftruncate(fd, PAGES_OF) == 0 && pages != MAP_FAILED);
    for (size_t i = 0; i < PAGES; i += PAGES_OF)
        CHECK(mmap(pages + i, PAGES_OF, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) ==
              pages + i);
    close(fd);
    return pages;
}

static struct elsewhere elsewhere_make(void)
{
    struct elsewhere e = {mmap(NULL, ELSEWHERE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                          mmap(NULL, ELSEWHERE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                          pages_make(), false};
    CHECK(e.data != MAP_FAILED && e.code != MAP_FAILED);
    memset(e.data, 1, ELSEWHERE);
    for (size_t i = 0; i < ELSEWHERE; i += 64) /* jmp over the rest of the line; the last returns */
        memcpy(&e.code[i], i + 64 < ELSEWHERE ? "\xeb\x3e" : "\xc3\xc3", 2);
    CHECK_EQ(mprotect(e.code, ELSEWHERE, PROT_READ | PROT_EXEC), 0);
    return e;
}

static void elsewhere_be(const struct elsewhere *e)
{
    for (size_t i = 0; e->wide && i < PAGES / 4096; i++)
        ((volatile uint8_t *)e->pages)[i * 4096 + i % 64 * 64];
    for (size_t i = 0; i < ELSEWHERE; i += 64)
        e->data[i]++;
    ((void (*)(void))(uintptr_t)e->code)(); /* NOLINT(performance-no-int-to-ptr) */
}

static double cold_ns(const struct elsewhere *e, uint32_t observe)
{
    double took[200];
    atomic_store(&fake.arena->observe, observe);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(took); i++) {
        elsewhere_be(e);
        uint64_t start = lithos_now_ns();
        launch_of(0x20, 0);
        took[i] = (double)(lithos_now_ns() - start);
    }
    drain();
    lithos_sort_samples(took, LITHOS_ARRAY_SIZE(took));
    return lithos_quantile(took, LITHOS_ARRAY_SIZE(took), 0.5);
}

/* Its launches run on fewer TPCs, as lithosd says, and are told apart by the one before. */
static void right_sized(bool on)
{
    const uint32_t grid[3] = {8, 2, 1}, block[3] = {32, 4, 1};
    const uint32_t before[] = {0, lithos_size_shape(grid, block)};
    struct lithos_size size = {.tpcs = {{0, 0}}};
    CHECK_EQ(lithos_tpcset_parse("9-12", &size.tpcs), 0);
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(before); i++)
        lithos_size_put(fake.arena->sizes, lithos_size_key(0x20, grid, block, before[i]), 2, &size);
    atomic_store(&fake.arena->lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    atomic_store(&fake.arena->sizing, on);
}

static void cost(void)
{
    observed(AS_IT_COMES);
    stub->quick_stamps = 1; /* what the card does by itself is no cost of a launch */
    launch_of(0x20, 0);
    uint64_t start = lithos_now_ns();
    for (int i = 0; i < 1000000; i++)
        __asm__ volatile("" ::"r"(lithos_now_ns()));
    double clock_ns = (double)(lithos_now_ns() - start) / 1e6;
    double off = best_ns(0), records = best_ns(LITHOS_OBSERVE_RECORDS), both = best_ns(AS_IT_COMES);
    printf("added to a launch: records %.0f ns, records and stamps %.0f ns (without %.0f ns, one look at the "
           "clock %.0f ns)\n",
           records - off, both - off, off, clock_ns);
    right_sized(true);
    launch_of(0x20, 0);
    CHECK(masked_with("9-12"));
    double sized = best_ns(AS_IT_COMES | LITHOS_OBSERVE_BEFORE);
    printf("right-sized: %.0f ns more\n", sized - both);
    right_sized(false);
    stub->no_callbacks = 1;
    launch_fn ours = launch_kernel,
              theirs = (launch_fn)dlsym(dlopen(STUB_PATH, RTLD_NOW | RTLD_NOLOAD), "cuLaunchKernel");
    CHECK(theirs && theirs != ours);
    launch_kernel = theirs;
    double bare = best_ns(0);
    printf("in all, beside the driver by itself: %.0f ns\n", both - bare);
#ifdef __x86_64__
    struct elsewhere e = elsewhere_make();
    for (int wide = 0; wide < 2; wide++) {
        e.wide = wide;
        launch_kernel = theirs;
        stub->no_callbacks = 1;
        double cold_bare = cold_ns(&e, 0);
        launch_kernel = ours;
        stub->no_callbacks = 0;
        double cold_off = cold_ns(&e, 0), cold_both = cold_ns(&e, AS_IT_COMES);
        printf("with cold caches%s: in all %.0f ns, records and stamps of these %.0f ns (driver %.0f ns)\n",
               wide ? " and the data's translations gone" : "", cold_both - cold_bare, cold_both - cold_off,
               cold_bare);
        right_sized(true);
        double cold_sized = cold_ns(&e, AS_IT_COMES | LITHOS_OBSERVE_BEFORE);
        right_sized(false);
        printf("right-sized: %.0f ns more\n", cold_sized - cold_both);
        CHECK(LITHOS_SANITIZED || cold_both - cold_bare < 5000);
    }
#endif
    CHECK_EQ(counted(LITHOS_COUNTER_RECORDS_DROPPED), 0);
    CHECK(LITHOS_SANITIZED || both - off < 1000);
    daemon_dies();
}

static void run_all(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*scenario)(void);
    } scenarios[] = {
        {"fields", fields},
        {"names", names},
        {"names_again", names_again},
        {"wakes", wakes},
        {"graphs", graphs},
        {"slots", slots},
        {"taken", taken_or_failed},
        {"contexts", contexts},
        {"off", switched_off},
        {"reattaches", reattaches},
        {"threads", threads},
        {"threads_reattach", threads_reattach},
        {"cost", cost},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(scenarios); i++)
        if (in_child(scenarios[i].scenario, NULL, 0) != 0)
            fail_msg("scenario %s", scenarios[i].name);
    char said[4096];
    assert_int_equal(in_child(refused, said, sizeof said), 0);
    const char *once = strstr(said, "no completion stamps");
    assert_non_null(once);
    assert_null(strstr(once + 1, "no completion stamps"));
}

int main(void)
{
    unsetenv("LITHOS_STAMPS");
    const struct CMUnitTest tests[] = {cmocka_unit_test(run_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
