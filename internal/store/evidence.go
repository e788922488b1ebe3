package store

import (
	"hash/maphash"
	"iter"
	"maps"

	"github.com/google/btree"

	"github.com/countersign-dev/countersign/internal/trust"
)

// evidence holds the evidence of each subject. A clone shares with its original all that is not
// changed in it, so that a publication costs about the same however much is held. The zero value is
// empty and read-only.
//
// It holds each subject twice: a decision finds one by its hash, and whoever lists several reads
// the tree.
type evidence struct {
	ordered *btree.BTreeG[*pair] // by key
	shards  *[shards]map[trust.Key]*cached
	seed    maphash.Seed // of the shards
}

type pair struct {
	key    trust.Key
	cached *cached
}

const (
	// degree is the degree of the tree. A change copies the nodes on the path to one key.
	degree = 16
	// shards is the number of maps. A change copies one of them, and the pointers to all.
	shards = 512
)

func (e evidence) clone() evidence {
	if e.ordered == nil {
		return evidence{
			ordered: btree.NewG(degree, func(a, b *pair) bool { return a.key.Compare(b.key) < 0 }),
			shards:  &[shards]map[trust.Key]*cached{}, seed: maphash.MakeSeed(),
		}
	}
	copied := *e.shards
	return evidence{ordered: e.ordered.Clone(), shards: &copied, seed: e.seed}
}

func (e evidence) shard(k trust.Key) int { return int(maphash.Comparable(e.seed, k) % shards) }

// get returns what is held of a subject; nil: nothing.
func (e evidence) get(k trust.Key) *cached {
	if e.shards == nil {
		return nil
	}
	return e.shards[e.shard(k)][k]
}

// set replaces what is held of a subject, and removes it where h is nil.
func (e evidence) set(k trust.Key, h *cached) {
	i := e.shard(k)
	shard := maps.Clone(e.shards[i]) // other snapshots share it
	if h == nil {
		delete(shard, k)
		e.ordered.Delete(&pair{key: k})
	} else {
		if shard == nil {
			shard = map[trust.Key]*cached{}
		}
		shard[k] = h
		e.ordered.ReplaceOrInsert(&pair{key: k, cached: h})
	}
	e.shards[i] = shard
}

// all yields everything, in order.
func (e evidence) all() iter.Seq2[trust.Key, *cached] {
	return e.from(trust.Key{}, func(trust.Key) bool { return true })
}

// under yields what is held under a trust root, in order.
func (e evidence) under(root string) iter.Seq2[trust.Key, *cached] {
	return e.from(trust.Key{Root: root}, func(k trust.Key) bool { return k.Root == root })
}

// of yields what is held of the repository of a subject, in order.
func (e evidence) of(k trust.Key) iter.Seq2[trust.Key, *cached] {
	repository := k.InRepository()
	return e.from(repository, func(k trust.Key) bool { return k.InRepository() == repository })
}

func (e evidence) from(first trust.Key, within func(trust.Key) bool) iter.Seq2[trust.Key, *cached] {
	return func(yield func(trust.Key, *cached) bool) {
		if e.ordered == nil {
			return
		}
		e.ordered.AscendGreaterOrEqual(&pair{key: first}, func(found *pair) bool {
			return within(found.key) && yield(found.key, found.cached)
		})
	}
}
