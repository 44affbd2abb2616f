/*
 * stats.c
 *    Histograms of latencies, with buckets of a constant relative width.
 */
#include <math.h>

#include "sim.h"

/* Each bucket is 2 % wider than the one before it: 1 us to some minutes. */
#define GROWTH 1.02

static unsigned
bucket_of(uint64_t us)
{
	double		b;

	if (us < 1)
		return 0;
	b = log((double) us) / log(GROWTH) + 1;
	return b >= SIM_BUCKETS ? SIM_BUCKETS - 1 : (unsigned) b;
}

/* Counts one value, in microseconds. */
void
sim_histogram_add(sim_histogram_t *h, uint64_t us)
{
	h->count++;
	if (us > h->max)
		h->max = us;
	h->buckets[bucket_of(us)]++;
}

/* Adds what another histogram counted. */
void
sim_histogram_merge(sim_histogram_t *into, const sim_histogram_t *from)
{
	into->count += from->count;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < SIM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

double
sim_histogram_ms(const sim_histogram_t *h, double share)
{
	uint64_t	wanted = (uint64_t) ((double) h->count * share);
	uint64_t	seen = 0;

	if (h->count == 0)
		return 0;
	for (unsigned i = 0; i < SIM_BUCKETS; i++)
	{
		seen += h->buckets[i];
		if (seen > wanted)
		{
			double		us = i == 0 ? 0 : pow(GROWTH, i);

			return (us > (double) h->max ? (double) h->max : us) / 1000;
		}
	}
	return (double) h->max / 1000;
}
