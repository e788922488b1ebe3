package store

import (
	"iter"

	"github.com/google/btree"

	"github.com/countersign-dev/countersign/internal/trust"
)

// evidence is what is held of each subject, in the order of keys. A clone shares what is not
// changed in it, so that a publication costs the same however much is held. The zero value is
// empty, and to be read only.
type evidence struct{ tree *btree.BTreeG[pair] }

type pair struct {
	key  trust.Key
	held *held
}

// nodeSize is half of what a node of the tree holds at most. A change copies a few nodes; a
// decision finds its way through fewer the larger they are.
const nodeSize = 16

func (e evidence) clone() evidence {
	if e.tree == nil {
		return evidence{btree.NewG(nodeSize, func(a, b pair) bool { return a.key.Compare(b.key) < 0 })}
	}
	return evidence{e.tree.Clone()}
}

// get returns what is held of a subject; nil: nothing.
func (e evidence) get(k trust.Key) *held {
	if e.tree == nil {
		return nil
	}
	found, _ := e.tree.Get(pair{key: k})
	return found.held
}

// set puts h in the place of what is held of a subject, or where it is nil has nothing held.
func (e evidence) set(k trust.Key, h *held) {
	if h == nil {
		e.tree.Delete(pair{key: k})
		return
	}
	e.tree.ReplaceOrInsert(pair{key: k, held: h})
}

// all yields everything, in order.
func (e evidence) all() iter.Seq2[trust.Key, *held] {
	return e.from(trust.Key{}, func(trust.Key) bool { return true })
}

// under yields what is held under a trust root, in order.
func (e evidence) under(root string) iter.Seq2[trust.Key, *held] {
	return e.from(trust.Key{Root: root}, func(k trust.Key) bool { return k.Root == root })
}

// of yields what is held of the repository of a subject, in order.
func (e evidence) of(k trust.Key) iter.Seq2[trust.Key, *held] {
	repository := k.InRepository()
	return e.from(repository, func(k trust.Key) bool { return k.InRepository() == repository })
}

func (e evidence) from(first trust.Key, within func(trust.Key) bool) iter.Seq2[trust.Key, *held] {
	return func(yield func(trust.Key, *held) bool) {
		if e.tree == nil {
			return
		}
		e.tree.AscendGreaterOrEqual(pair{key: first}, func(found pair) bool {
			return within(found.key) && yield(found.key, found.held)
		})
	}
}
