/* The parts of right-sizing: operators and their widths (rightsize_operator.c), choices (rightsize.c), what is said beforehand
 * (rightsize_advise.c), the tenant's own latency (rightsize_loop.c, rightsize_evidence.c), what is left for others (rightsize_strip.c), which
 * TPCs (rightsize_set.c). */
#pragma once

#include "base/util.h"
#include "core/predict_internal.h"
#include "core/rightsize.h"

#define RIGHTSIZE_WIDTHS 6u
#define RIGHTSIZE_WINDOW 8u
#define RIGHTSIZE_WAYS 8u
/* Samples at a width before it is believed to be enough; at all TPCs, before anything else is tried. */
#define RIGHTSIZE_ENOUGH 4u
/* Latencies kept of requests of each kind. */
#define RIGHTSIZE_LATENCIES 256u

struct rightsize_point {
    uint16_t width;      /* 0: free */
    uint8_t count, next; /* samples in the window */
    uint32_t idle;       /* samples at other widths since */
    float sample_ns[RIGHTSIZE_WINDOW];
    float median_ns, error_ns; /* and what it may be off by: 2 standard errors */
};

struct rightsize_operator {
    uint64_t key;
    uint64_t used; /* 0: free; else the time of last use, in choices */
    uint32_t tag;
    uint16_t best; /* width in use; 0: all */
    uint16_t best_of, trying;
    uint8_t strikes;
    uint16_t now, usual; /* launches in this request, and in those before it */
    uint32_t request;    /* that now is of */
    float costs_ns;      /* set aside for its tries */
    float odd; /* part of its launches that take another time than the median of their width, lately */
    struct rightsize_point point[RIGHTSIZE_WIDTHS];
};

/* Requests of a block, at most; and bets: on the rank of its reference, and on tails. */
#define RIGHTSIZE_BLOCK_MOST 32u
#define RIGHTSIZE_RECENT 16u
#define RIGHTSIZE_RANKS 3u
#define RIGHTSIZE_TAILS 3u
#define RIGHTSIZE_BETS (RIGHTSIZE_RANKS + RIGHTSIZE_TAILS)
/* Evidence that is an alarm; 1 is none. */
#define RIGHTSIZE_ALARM 500.0f

/* Requests one after the other, of which one is a reference. */
struct rightsize_block {
    uint64_t number;
    uint32_t length; /* 0: not begun */
    uint32_t place;  /* of the request that runs, */
    uint32_t reference;
    uint32_t near;      /* and of the one beside the reference that is right-sized though there is a strip */
    bool again;         /* the next one has the same place */
    uint32_t count;     /* right-sized ones that have ended */
    float reference_us; /* 0: has not ended */
    float us[RIGHTSIZE_BLOCK_MOST];
};

/* Latencies of requests of one kind, the newest. */
struct rightsize_latencies {
    uint32_t count, next;
    float value[RIGHTSIZE_LATENCIES];
};

/* What the last requests took. */
struct rightsize_recent {
    uint32_t count, next;
    float us[RIGHTSIZE_RECENT];
};

/* That requests take longer than they may, and not by chance (rightsize_evidence.c). */
struct rightsize_evidence {
    float capital[RIGHTSIZE_BETS];
    struct rightsize_recent recent;        /* right-sized requests before this block */
    struct rightsize_latencies references; /* in parts of the median of these */
    float tail[RIGHTSIZE_TAILS];           /* so many of these few references are over; 0: not known */
};

enum rightsize_kind {
    RIGHTSIZE_SIZED,
    RIGHTSIZE_REFERENCE, /* all TPCs: to compare with */
    RIGHTSIZE_LENT,      /* all but the strip, which others may have */
    RIGHTSIZE_DRAIN,     /* the same while others' work there ends; says nothing */
};

struct rightsize_loop {
    bool open; /* a request runs */
    enum rightsize_kind kind;
    uint64_t stopped_until_ns, stop_for_ns;
    uint32_t good;  /* right-sized requests with which nothing was wrong, since the slip in force changed */
    uint32_t watch; /* blocks that are short all the same */
    bool begun_stopped;
    struct rightsize_block block;
    struct rightsize_evidence evidence;
};

struct rightsize_strip {
    bool wanted;
    uint16_t cluster_blocks; /* the largest cluster of its launches: what is kept has room for it */
    uint32_t level;          /* parts of the TPCs that are left, of RIGHTSIZE_STRIP_PARTS; 0: not begun */
    uint32_t bad, bad_for; /* a level that was too much; for so many more requests; 0: none is known to be */
    uint32_t met_pause,
        met_for;       /* requests without a strip: still, and the next time; since a launch met it */
    bool wide;         /* it begins with more the next time: little was of no use */
    bool halve;        /* in the next request */
    uint32_t good;     /* requests on end that bore it */
    bool used;         /* others went there, in this request */
    float use;         /* in what part of them lately */
    uint32_t taken;    /* requests in which they did, since nobody had */
    uint64_t begin_ns; /* not before: it was too much at any level, or nobody took it */
    uint64_t stop_for_ns, unused_for_ns;
    uint64_t ended_ns;                /* of the last request that ran beside it */
    struct rightsize_latencies whole; /* references, whatever else was on their TPCs */
    float usual_us;                   /* their median */
    struct rightsize_block block;     /* requests beside the strip, and a reference */
    struct rightsize_evidence evidence;
    struct rightsize_recent recent; /* requests of all kinds that say something */
    float before_us, least_us;      /* their median before this level; the shortest request at it */
    uint32_t looked, over;          /* requests at it whose tail was looked at; over what references are */
    struct lithos_tpcset of, kept;  /* of these TPCs, at this level: */
    uint32_t kept_level;
};

struct lithos_rightsize {
    struct lithos_rightsize_config config;
    struct lithos_rightsize_stats stats;
    struct rightsize_loop loop;
    struct rightsize_strip strip;
    double earned_ns;
    double tries_ns;     /* what of it tries may spend */
    double spare_ns;     /* what requests have earned and not spent, on the average: for rightsize_advise.c */
    double committed_ns; /* of that, set aside for tries under way */
    uint64_t clock;      /* of choices, and of launches that were told of when they had ended */
    uint32_t sets, tags;
    struct rightsize_operator op[];
};

/* rightsize_operator.c */
struct rightsize_operator *rightsize_find(struct lithos_rightsize *r, uint64_t key, bool make);
void rightsize_add(struct lithos_rightsize *r, struct rightsize_operator *op, uint64_t duration_ns,
                   uint32_t tpcs);
const struct rightsize_point *rightsize_point(const struct rightsize_operator *op, uint32_t width);
/* Its launches are several kinds of work: all TPCs are for them. */
bool rightsize_is_mixed(const struct rightsize_operator *op);
/* ALL, or MIXED. */
enum lithos_rightsize_why rightsize_why_all(const struct rightsize_operator *op);
bool rightsize_fit(const struct rightsize_operator *op, double *ret_m_ns, double *ret_b_ns);

/* rightsize.c: what is measured of an operator that is known on all TPCs, and the width to try next. */
struct rightsize_bounds {
    float all_ns;      /* measured with all */
    float limit_ns;    /* what it may take */
    uint32_t all, bad; /* the widest known to be too narrow; 0: none */
    uint32_t good;     /* the narrowest known to be enough */
};

struct rightsize_bounds rightsize_measured(const struct lithos_rightsize *r,
                                           const struct rightsize_operator *op,
                                           const struct lithos_rightsize_kernel *k,
                                           const struct rightsize_point *all);
/* A width worth a try, or 0. */
uint32_t rightsize_next_try(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                            const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b);
/* The longest it may take on so many TPCs. */
float rightsize_worst_ns(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                         const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b,
                         uint32_t width);
/* A width closer than this to the one in use is not worth a try. */
uint32_t rightsize_worth(uint32_t all);

/* rightsize_advise.c: a request begins */
void rightsize_advise_request(struct lithos_rightsize *r);

/* rightsize_loop.c: slip in force, in parts of what was asked for */
bool rightsize_stopped(const struct lithos_rightsize *r);

/* rightsize_evidence.c */
void rightsize_keep(struct rightsize_latencies *l, float latency);
/* Quantile in percent; 0 where there are none. */
float rightsize_latency(const struct rightsize_latencies *l, uint32_t percent);
void rightsize_block_add(struct rightsize_block *b, float us);
/* A block has ended, whose right-sized requests may take `may` times what references do. */
void rightsize_bet(struct rightsize_evidence *e, const struct rightsize_block *b, float may);
/* That they take longer; 1 or so: none. */
float rightsize_block_median_us(
    const struct rightsize_block *b); /* of its right-sized ones; 0: there are none */
float rightsize_evidence_of(const struct rightsize_evidence *e);
/* More references are worth what they cost. */
/* Is most of it that of seldom slow ones? */
bool rightsize_is_of_tails(const struct rightsize_evidence *e);
bool rightsize_suspects(const struct rightsize_evidence *e);
bool rightsize_is_betting_on_tails(const struct rightsize_evidence *e);
void rightsize_bet_anew(struct rightsize_evidence *e);
/* Median of the last requests; 0: there are few. */
float rightsize_recent_us(const struct rightsize_recent *l);
void rightsize_recent_add(struct rightsize_recent *l, float us);

/* rightsize_strip.c: of the request that begins, where nothing else is due; one that ran beside the strip has ended. */
enum rightsize_kind rightsize_strip_kind(struct lithos_rightsize *r, uint64_t now_ns);
void rightsize_strip_reference(struct lithos_rightsize *r, uint64_t latency_ns);
/* One that is right-sized has ended, and nobody was there. */
void rightsize_strip_alone(struct lithos_rightsize *r, float us);
void rightsize_strip_end_block(struct lithos_rightsize *r, uint64_t now_ns);
void rightsize_strip_done(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns);
/* May that kernel keep off the strip? */
bool rightsize_strip_bears(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k,
                           struct lithos_tpcset kept);
/* Its clusters are to have room in what is kept. */
void rightsize_strip_note(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k);
