/*
 * wheel.c
 *    See wheel.h.
 */
#include "wheel.h"

#include <string.h>

/* The tick whose turn finds an item due: the first that begins at or after its time. */
static uint64_t
tick_of(uint64_t due)
{
	return due / EVP_WHEEL_TICK_MS + (due % EVP_WHEEL_TICK_MS != 0);
}

void
evp_wheel_init(evp_wheel_t *w, uint64_t now)
{
	memset(w, 0, sizeof *w);
	w->tick = now / EVP_WHEEL_TICK_MS;
}

void
evp_wheel_add(evp_wheel_t *w, evp_wheel_item_t *item, uint64_t due)
{
	uint64_t	tick = tick_of(due);
	evp_wheel_item_t **slot;

	evp_wheel_remove(w, item);
	if (tick <= w->tick)
		tick = w->tick + 1;
	slot = &w->slots[tick % EVP_WHEEL_SLOTS];
	item->due = due;
	item->next = *slot;
	if (item->next != NULL)
		item->next->link = &item->next;
	item->link = slot;
	*slot = item;
	w->count++;
}

void
evp_wheel_remove(evp_wheel_t *w, evp_wheel_item_t *item)
{
	if (item->link == NULL)
		return;
	*item->link = item->next;
	if (item->next != NULL)
		item->next->link = item->link;
	item->next = NULL;
	item->link = NULL;
	w->count--;
}

evp_wheel_item_t *
evp_wheel_turn(evp_wheel_t *w, uint64_t now)
{
	uint64_t	last = now / EVP_WHEEL_TICK_MS;

	/* After a long pause one round looks at every slot; more would look at the same ones again. */
	if (last > w->tick + EVP_WHEEL_SLOTS)
		w->tick = last - EVP_WHEEL_SLOTS;
	while (w->tick < last)
	{
		evp_wheel_item_t *item = w->count > 0 ? w->slots[(w->tick + 1) % EVP_WHEEL_SLOTS] : NULL;

		for (; item != NULL; item = item->next)
		{
			if (item->due <= now)
			{
				evp_wheel_remove(w, item);
				return item;
			}
		}
		w->tick++;
	}
	return NULL;
}
