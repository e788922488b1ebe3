package imageref

import (
	"slices"
	"strings"
)

// Index finds the patterns that match a repository, without a check of every pattern. It is a trie
// over hosts and path segments, in which only wildcards branch. The time of a lookup depends on the
// path and on the wildcards along it, not on the number of patterns that differ in a literal
// segment. Build it with Add before use; lookups are then safe for concurrent use. The zero value
// is empty and ready for Add.
type Index struct {
	hosts map[string]*indexNode // literal hosts
	wild  []indexEdge           // hosts with wildcards
}

type indexNode struct {
	literal map[string]*indexNode
	wild    []indexEdge // segments with "*"
	many    *indexNode  // the node after "**"
	loops   bool        // the node follows "**": any segment leads back to it
	ids     []int       // patterns that end here
}

type indexEdge struct {
	pattern string
	to      *indexNode
}

// Add adds a pattern with an id that the caller chooses. It need not be unique. Add ignores the
// zero Pattern.
func (x *Index) Add(p Pattern, id int) {
	if p.host == "" {
		return
	}
	node := x.hostNode(p.host)
	for _, segment := range p.segments {
		node = node.child(segment)
	}
	node.ids = append(node.ids, id)
}

func (x *Index) hostNode(host string) *indexNode {
	if strings.Contains(host, anyOne) {
		return wildChild(&x.wild, host)
	}
	if x.hosts == nil {
		x.hosts = make(map[string]*indexNode)
	}
	if x.hosts[host] == nil {
		x.hosts[host] = &indexNode{}
	}
	return x.hosts[host]
}

func (n *indexNode) child(segment string) *indexNode {
	switch {
	case segment == anyMany:
		if n.many == nil {
			n.many = &indexNode{loops: true}
		}
		return n.many
	case strings.Contains(segment, anyOne):
		return wildChild(&n.wild, segment)
	}
	if n.literal == nil {
		n.literal = make(map[string]*indexNode)
	}
	if n.literal[segment] == nil {
		n.literal[segment] = &indexNode{}
	}
	return n.literal[segment]
}

func wildChild(edges *[]indexEdge, pattern string) *indexNode {
	for _, e := range *edges {
		if e.pattern == pattern {
			return e.to
		}
	}
	to := &indexNode{}
	*edges = append(*edges, indexEdge{pattern, to})
	return to
}

// Find appends to ids the ids of the patterns that match the repository of r. It returns ids sorted
// and without duplicates. It allocates only if ids must grow or very many wildcards overlap.
func (x *Index) Find(r Ref, ids []int) []int {
	var here, there [16]*indexNode
	active, next := here[:0], there[:0]
	if node := x.hosts[r.Host]; node != nil {
		active = node.enter(active)
	}
	for _, e := range x.wild {
		if matchHost(e.pattern, r.Host) {
			active = e.to.enter(active)
		}
	}
	for segment := range strings.SplitSeq(r.Path, "/") {
		next = next[:0]
		for _, node := range active {
			next = node.step(segment, next)
		}
		active, next = next, active
	}
	for _, node := range active {
		ids = append(ids, node.ids...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Matches reports whether any pattern matches the repository of r.
func (x *Index) Matches(r Ref) bool {
	var ids [16]int
	return len(x.Find(r, ids[:0])) > 0
}

// enter adds a node to the active ones, and the nodes that need no further segment. It adds a node
// only once, even if two ways lead to it. So there are never more active nodes than nodes in the
// trie.
func (n *indexNode) enter(active []*indexNode) []*indexNode {
	for ; n != nil && !slices.Contains(active, n); n = n.many {
		active = append(active, n)
	}
	return active
}

// step adds the nodes that a segment leads to.
func (n *indexNode) step(segment string, active []*indexNode) []*indexNode {
	if n.loops {
		active = n.enter(active)
	}
	active = n.literal[segment].enter(active)
	for _, e := range n.wild {
		if matchSegment(e.pattern, segment) {
			active = e.to.enter(active)
		}
	}
	return active
}
