/* The parts of right-sizing: operators and their widths (rightsize_operator.c), choices (rightsize.c), what is said beforehand
 * (rightsize_advise.c), how much slower they may be (rightsize_room.c), the tenant's own latency (rightsize_loop.c, rightsize_evidence.c,
 * rightsize_kind.c), what is left for others (rightsize_strip.c), which TPCs (rightsize_set.c). */
#pragma once

#include "base/util.h"
#include "core/predict_internal.h"
#include "core/rightsize.h"

#define RIGHTSIZE_WIDTHS 6u
#define RIGHTSIZE_WINDOW 8u
#define RIGHTSIZE_WAYS 8u
/* How many times as long kernels may take: so many such factors are looked at (rightsize_room.c). */
#define RIGHTSIZE_ROOM_STEPS 8u
#define RIGHTSIZE_ROOM_LAST 16u
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
    float slower
        [RIGHTSIZE_ROOM_STEPS]; /* so many times as long it would take if it might take that much; 0: not known yet */
    uint8_t looked;             /* launches since that was looked at */
    uint64_t last_until; /* until so many requests it is one that nothing follows in its own */
    struct rightsize_point point[RIGHTSIZE_WIDTHS];
};

/* Rounds of a block, at most; and bets: on the rank of its reference, and on tails. */
#define RIGHTSIZE_BLOCK_MOST 32u
#define RIGHTSIZE_RECENT 16u
#define RIGHTSIZE_RANKS 3u
#define RIGHTSIZE_TAILS 3u
#define RIGHTSIZE_BETS (RIGHTSIZE_RANKS + RIGHTSIZE_TAILS)
/* Evidence that is an alarm; 1 is none. */
#define RIGHTSIZE_ALARM 500.0f

/* Rounds one after the other, of which one is a reference. A round is one request of the kind that leads, and what there is of others
 * before it. */
struct rightsize_block {
    uint64_t number;
    uint32_t length; /* 0: not begun */
    uint32_t place;  /* of the round that runs, */
    uint32_t reference;
    uint32_t near; /* and of the one beside the reference that is right-sized though there is a strip */
};

/* Requests of one kind, each the first of its round, and of a reference. */
struct rightsize_sample {
    uint32_t count;
    float us[RIGHTSIZE_BLOCK_MOST];
    float reference_us; /* 0: there is none yet */
};

/* Latencies, the newest. */
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
    struct rightsize_sample sample; /* to be bet on next */
    float capital[RIGHTSIZE_BETS];
    struct rightsize_recent recent;        /* right-sized requests before this block */
    struct rightsize_latencies references; /* in parts of the median of these */
    float tail[RIGHTSIZE_TAILS];           /* so many of these few references are over; 0: not known */
};

enum rightsize_mode {
    RIGHTSIZE_SIZED,
    RIGHTSIZE_REFERENCE, /* all TPCs: to compare with */
    RIGHTSIZE_LENT,      /* all but the strip, which others may have */
    RIGHTSIZE_DRAIN,     /* the same while others' work there ends; says nothing */
    RIGHTSIZE_WHOLE,     /* all TPCs: somebody would borrow, and nothing can be left to him */
};

/* Requests of about as many launches: they alone are compared with each other (rightsize_kind.c). */
#define RIGHTSIZE_KINDS 8u
#define RIGHTSIZE_PARTS 32u

struct rightsize_kind {
    bool used;
    float launches;
    float us, count; /* what they took of late, all together, and how many they were */
    uint64_t round;  /* the last one of which one was looked at */
    struct rightsize_evidence sized, lent;
    struct rightsize_latencies whole;        /* references, whatever else was on their TPCs */
    struct rightsize_recent recent;          /* requests of all modes that say something */
    uint32_t parts;                          /* references at this level of the strip: */
    float part[RIGHTSIZE_PARTS], usual_part; /* in parts of what requests took, the newest; their median */
    struct rightsize_latencies spread;       /* references, in parts of what they usually take */
    float tail;                              /* one in a hundred is over that; 0: not known */
    float before_us, least_us; /* what one would have taken just before it; the shortest request at it */
    uint32_t borne;            /* requests at it */
    uint32_t looked, over;     /* of them, whose tail was looked at; over what references are */
};

struct rightsize_kinds {
    struct rightsize_kind kind[RIGHTSIZE_KINDS];
    struct rightsize_kind *leading; /* of those that are worth it, the most frequent; NULL: not known yet */
    float us;                       /* what all requests took of late */
    uint32_t ended;                 /* requests since that was halved */
};

struct rightsize_loop {
    bool open; /* a request runs */
    enum rightsize_mode mode;
    bool has_lent;   /* others could go to the strip while it did */
    uint64_t round;  /* the number of the round that it is of */
    bool round_over; /* the next request begins another */
    uint32_t others; /* requests of the round that are of other kinds which are guarded */
    uint32_t spoilt; /* and of the one that leads, that say nothing */
    uint64_t stopped_until_ns, stop_for_ns;
    uint32_t good;  /* right-sized requests with which nothing was wrong, since the slip in force changed */
    uint32_t watch; /* blocks that are short all the same */
    bool begun_stopped;
    uint32_t references; /* of a round, since it began, or was stopped */
    struct rightsize_block block;
};

struct rightsize_strip {
    bool wanted;
    uint16_t cluster_blocks; /* the largest cluster of its launches: what is kept has room for it */
    uint32_t level;          /* parts of the TPCs that are left, of RIGHTSIZE_STRIP_PARTS; 0: not begun */
    uint32_t bad, bad_for; /* a level that was too much; for so many more requests; 0: none is known to be */
    uint32_t met_pause,
        met_for;   /* requests without a strip: still, and the next time; since a launch met it */
    bool wide;     /* it begins with more the next time: little was of no use */
    bool halve;    /* in the next request */
    uint32_t good; /* requests on end that bore it, of the kind that leads */
    /* Of requests beside this level, lately: how long they took, and others' work there, as if all of it had been on all of the strip. */
    float lent_ns, used_ns;
    bool used;                /* others went there, in this request */
    float use;                /* in what part of them lately */
    uint32_t taken;           /* requests in which they did, since nobody had */
    bool patient;             /* others' kernels may take long there: nobody took it for less */
    uint32_t impatient_for;   /* they may not, for so many more requests: a launch has met such a one */
    uint64_t beside_until_ns; /* others' work is there until then, as predicted; */
    uint64_t bore_ns;         /* what they could go there with when it was left last */
    uint64_t begin_ns;        /* not before: it was too much at any level, or nobody took it */
    uint64_t stop_for_ns, unused_for_ns;
    uint64_t ended_ns;             /* of the last request that ran beside it */
    float usual_us;                /* what references of the kind that leads take */
    struct lithos_tpcset of, kept; /* of these TPCs, at this level: */
    uint32_t kept_level;
};

/* One that has ended; more of its kernels may come in. */
struct rightsize_room_request {
    uint64_t ended_ns; /* 0: there is none */
    uint32_t launches;
    bool alone;  /* nobody was beside it */
    bool unseen; /* not all of its work is told of */
};

/* If kernels might take longer by a factor, for each of a few: how much later would requests be than with all TPCs? */
struct rightsize_room {
    struct rightsize_room_request request;
    bool unseen;             /* the one that runs has work of which no kernels come in */
    uint32_t kernels;        /* that came in since the one before it was complete; with all TPCs, */
    double begin_ns, end_ns; /* when the first could have begun, and the end of the last of them, */
    float idle_ns;           /* and the card's idle time between them */
    float lag_ns[RIGHTSIZE_ROOM_STEPS]; /* by so much it would be later, */
    float late_ns
        [RIGHTSIZE_ROOM_STEPS]; /* and so much if those since the card was idle last keep to the slip; */
    float next_ns;              /* the same for the next factor, by what is known of operators alone */
    /* Those since the card was idle last, or the first of them. */
    struct {
        uint32_t op, tag;
    } last[RIGHTSIZE_ROOM_LAST];
    uint32_t last_count;
    uint32_t
        unreckoned;    /* requests on end that could not be reckoned, for not all of their kernels came in */
    uint32_t requests; /* that could, lately: */
    float took_us, idle_us, next_us, late_us[RIGHTSIZE_ROOM_STEPS];
    uint32_t step; /* the factor that they bear; 0: the slip */
};

struct lithos_rightsize {
    struct lithos_rightsize_config config;
    struct lithos_rightsize_stats stats;
    struct rightsize_loop loop;
    struct rightsize_room room;
    struct rightsize_kinds kinds;
    struct rightsize_strip strip;
    double earned_ns;
    double tries_ns; /* what of it tries may spend */
    double slip_ns;  /* what launches of this request earned by the slip alone: for rightsize_advise.c, as */
    double spare_ns; /* what requests have earned by it at most and not spent, on the average */
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
    float all_ns;   /* measured with all */
    float limit_ns; /* what it may take */
    float slip_ns; /* the same by the slip alone, whatever room its requests have: tries are paid from that */
    uint32_t all, bad; /* the widest known to be too narrow; 0: none */
    uint32_t good;     /* the narrowest known to be enough */
    uint32_t use;      /* of those known to be enough, the one that is worth most */
};

struct rightsize_bounds rightsize_measured(const struct lithos_rightsize *r,
                                           const struct rightsize_operator *op,
                                           const struct lithos_rightsize_kernel *k,
                                           const struct rightsize_point *all, float kernel_slip);
/* A width worth a try, or 0. */
uint32_t rightsize_next_try(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                            const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b);
/* Of one that was launched: what is known for what it may take now, and for what it is tried for, which is the same or more; a width worth a try
 * there, or 0. From now on the first says what it runs on. all: what it takes on all TPCs. */
struct rightsize_bounds rightsize_look(const struct lithos_rightsize *r, struct rightsize_operator *op,
                                       const struct lithos_rightsize_kernel *k,
                                       const struct rightsize_point *all, struct rightsize_bounds *ret_next,
                                       uint32_t *ret_try);
/* The longest it may take on so many TPCs. */
float rightsize_worst_ns(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                         const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b,
                         uint32_t width);
/* A width closer than this to the one in use is not worth a try. */
uint32_t rightsize_worth(uint32_t all);

/* rightsize_room.c: in parts of its time on all TPCs, what it may take, and what it is tried for: the next factor, where the card is idle within
 * requests. The slip for what may be the last of its request, for there is no idle time behind it. */
float rightsize_may_take(const struct lithos_rightsize *r, const struct rightsize_operator *op);
float rightsize_may_take_next(const struct lithos_rightsize *r, const struct rightsize_operator *op);
/* Within a request, about. */
double rightsize_idle_ns(const struct lithos_rightsize *r);
/* One of it was launched. all: what it takes on all TPCs. */
void rightsize_room_operator(const struct lithos_rightsize *r, struct rightsize_operator *op,
                             const struct lithos_rightsize_kernel *k, const struct rightsize_point *all);
/* A request has ended; `alone`: nobody was beside it. */
void rightsize_room_request(struct lithos_rightsize *r, uint64_t now_ns, uint32_t launches, bool alone);
void rightsize_room_pause(struct lithos_rightsize *r); /* what runs is of none */

/* rightsize_advise.c: a request begins */
void rightsize_advise_request(struct lithos_rightsize *r);

/* rightsize_loop.c: slip in force, in parts of what was asked for */
bool rightsize_stopped(const struct lithos_rightsize *r);

/* rightsize_kind.c: the kind of a request that has ended. */
struct rightsize_kind *rightsize_kind_of(struct lithos_rightsize *r, uint32_t launches, float us);
/* Is a part of the time its own that is worth a guard? */
bool rightsize_is_guarded(const struct lithos_rightsize *r, const struct rightsize_kind *k);
uint32_t rightsize_guarded(const struct lithos_rightsize *r); /* such kinds */
void rightsize_choose_leading(struct lithos_rightsize *r);
/* It has not come for long. */
void rightsize_drop_leading(struct lithos_rightsize *r);
/* The next of those that are guarded, after k, or of all from NULL on; NULL: there is none. */
struct rightsize_kind *rightsize_next_guarded(struct lithos_rightsize *r, struct rightsize_kind *k);
/* Samples that are not bet on. */
void rightsize_drop_samples(struct lithos_rightsize *r);

/* rightsize_evidence.c */
void rightsize_keep(struct rightsize_latencies *l, float latency);
/* Quantile in percent; 0 where there are none. */
float rightsize_latency(const struct rightsize_latencies *l, uint32_t percent);
void rightsize_sample_add(struct rightsize_sample *s, float us);
float rightsize_sample_median_us(
    const struct rightsize_sample *s); /* of those that are no reference; 0: there are none */
/* Its sample is complete, in which requests may take `may` times what references do; it is empty then. */
void rightsize_bet(struct rightsize_evidence *e, float may);
/* That they take longer; 1 or so: none. */
float rightsize_evidence_of(const struct rightsize_evidence *e);
/* Is most of it that of seldom slow ones? */
bool rightsize_is_of_tails(const struct rightsize_evidence *e);
/* More references are worth what they cost; it is one of so many kinds. */
bool rightsize_suspects(const struct rightsize_evidence *e, uint32_t kinds);
bool rightsize_is_betting_on_tails(const struct rightsize_evidence *e, uint32_t kinds);
void rightsize_bet_anew(struct rightsize_evidence *e);
/* Median of the last requests; 0: there are few. */
float rightsize_recent_us(const struct rightsize_recent *l);
void rightsize_recent_add(struct rightsize_recent *l, float us);

/* rightsize_strip.c: of the request that begins, where nothing else is due. */
enum rightsize_mode rightsize_strip_mode(struct lithos_rightsize *r, uint64_t now_ns);
/* A reference has ended, of that kind, or one that is right-sized and had nobody there; or one that ran beside the strip. */
void rightsize_strip_reference(struct lithos_rightsize *r, struct rightsize_kind *k, float us);
void rightsize_strip_done(struct lithos_rightsize *r, struct rightsize_kind *k, uint64_t now_ns, float us);
void rightsize_strip_end_block(struct lithos_rightsize *r, uint64_t now_ns);
/* Does any kind speak against it? */
bool rightsize_strip_suspects(struct lithos_rightsize *r);
bool rightsize_strip_is_climbing(const struct lithos_rightsize *r);
bool rightsize_strip_is_weighed(struct lithos_rightsize *r);
void rightsize_strip_anew(struct lithos_rightsize *r); /* another slip */
/* May that kernel keep off the strip? */
bool rightsize_strip_bears(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k,
                           struct lithos_tpcset kept);
/* Its clusters are to have room in what is kept. */
void rightsize_strip_note(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k);

/* rightsize_loop.c: does any kind speak against right-sizing? */
bool rightsize_loop_suspects(struct lithos_rightsize *r);
/* Is the sample of that kind to be bet on, at the end of a block? */
bool rightsize_is_due(const struct lithos_rightsize *r, const struct rightsize_kind *k,
                      const struct rightsize_sample *s);
