/* CUDA graphs, as both sides of the arena speak of them. */
#pragma once

/* Why kernels of a graph keep the TPCs that they were given. */
enum lithos_graph_keeps {
#define W(name, why) LITHOS_GRAPH_KEEPS_##name,
#include "hw/graph_keeps.def"
#undef W
    LITHOS_GRAPH_KEEPS_MAX,
};
