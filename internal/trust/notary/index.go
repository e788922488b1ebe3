package notary

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// statementIndex stores the statements of one repository. The store holds those of thousands of
// repositories, so they are compact: it stores tags, digests and proofs once, and builds statements
// on request. Its large parts hold no pointers, so that the garbage collector need not scan them.
type statementIndex struct {
	tags     string              // all tags, one after the other
	digests  [][sha256.Size]byte // sorted, each once
	signed   []signedTag         // sorted by tag and digest
	byDigest []int32             // indexes of signed, sorted by digest and tag
	proofs   [][]*roleProof      // each combination once; each sorted by role
}

// signedTag is a tag with a digest that one or more roles have signed for it.
type signedTag struct {
	tag    int32 // offset in tags
	length int32 // of the tag
	digest int32 // index of digests
	proofs int32 // index of proofs
}

// roleProof is a role that the same keys prove until the same time.
type roleProof struct {
	role     string
	keys     []string
	notAfter time.Time
}

// index converts an index or offset. Files of a repository have at most maxTotalSize bytes
// together.
func index(n int) int32 { return int32(n) } //nolint:gosec // bounded

// newStatementIndex returns the index of statements that are sorted by tag, digest and role.
func newStatementIndex(all []rawStatement) statementIndex {
	var x statementIndex
	x.digests = distinctDigests(all)
	sets := proofSets{ids: map[*roleProof]uint64{}, known: map[string]int32{}}
	var tags strings.Builder
	for from := 0; from < len(all); {
		s := &all[from]
		to := from + 1
		for to < len(all) && all[to].tag == s.tag && all[to].digest == s.digest {
			to++
		}
		one := signedTag{tag: index(tags.Len()), length: index(len(s.tag))}
		if from > 0 && all[from-1].tag == s.tag {
			one.tag -= one.length
		} else {
			tags.WriteString(s.tag)
		}
		digest, _ := slices.BinarySearchFunc(x.digests, s.digest, compareDigests)
		one.digest, one.proofs = index(digest), sets.add(all[from:to])
		x.signed = append(x.signed, one)
		from = to
	}
	x.tags, x.proofs, x.signed = strings.Clone(tags.String()), slices.Clone(sets.all), slices.Clone(x.signed)
	x.byDigest = make([]int32, len(x.signed))
	for i := range x.byDigest {
		x.byDigest[i] = index(i)
	}
	slices.SortFunc(x.byDigest, func(i, j int32) int {
		return cmp.Or(cmp.Compare(x.signed[i].digest, x.signed[j].digest), cmp.Compare(i, j))
	})
	return x
}

func compareDigests(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) }

func distinctDigests(all []rawStatement) [][sha256.Size]byte {
	digests := make([][sha256.Size]byte, 0, len(all))
	for i := range all {
		if i == 0 || all[i].digest != all[i-1].digest {
			digests = append(digests, all[i].digest)
		}
	}
	slices.SortFunc(digests, compareDigests)
	return slices.Clone(slices.Compact(digests)) // with no capacity beyond them
}

// proofSets stores each combination of proofs once. Most repositories have one: the same
// delegations sign every tag.
type proofSets struct {
	ids   map[*roleProof]uint64
	known map[string]int32
	all   [][]*roleProof
	key   []byte
}

// add returns the index in all of the proofs of some statements.
func (p *proofSets) add(statements []rawStatement) int32 {
	p.key = p.key[:0]
	for _, s := range statements {
		id, known := p.ids[s.proof]
		if !known {
			id = uint64(len(p.ids))
			p.ids[s.proof] = id
		}
		p.key = binary.AppendUvarint(p.key, id)
	}
	if i, known := p.known[string(p.key)]; known {
		return i
	}
	proofs := make([]*roleProof, len(statements))
	for i, s := range statements {
		proofs[i] = s.proof
	}
	i := index(len(p.all))
	p.known[string(p.key)], p.all = i, append(p.all, proofs)
	return i
}

// size returns the memory of the index, in bytes.
func (x *statementIndex) size() int64 {
	const perSigned, perSet = 16, 24
	size := len(x.tags) + perSet*cap(x.proofs) + sha256.Size*cap(x.digests) + perSigned*cap(x.signed) +
		4*cap(x.byDigest)
	for _, proofs := range x.proofs {
		size += 8 * cap(proofs)
	}
	return int64(size)
}

// find returns the statements about a tag, a digest, or both. Empty stands for any.
func (x *statementIndex) find(tag, digest string) []trust.Statement {
	number := -1
	if digest != "" {
		var found bool
		if number, found = x.digest(digest); !found {
			return nil
		}
	}
	if tag == "" && digest != "" {
		return x.about(number, digest)
	}
	from, to := 0, len(x.signed)
	if tag != "" {
		from, to = x.tagRange(tag)
	}
	var all []trust.Statement
	for _, s := range x.signed[from:to] {
		if number < 0 || int(s.digest) == number {
			all = x.append(all, s, digest)
		}
	}
	return all
}

// about returns the statements about a digest, sorted by role and tag.
func (x *statementIndex) about(number int, digest string) []trust.Statement {
	from, _ := slices.BinarySearchFunc(x.byDigest, number,
		func(i int32, number int) int { return cmp.Compare(int(x.signed[i].digest), number) })
	var all []trust.Statement
	for _, i := range x.byDigest[from:] {
		if int(x.signed[i].digest) != number {
			break
		}
		all = x.append(all, x.signed[i], digest)
	}
	slices.SortStableFunc(all, func(a, b trust.Statement) int { return strings.Compare(a.Role, b.Role) })
	return all
}

// append appends the statements about a signed tag. digest is its digest, or empty.
func (x *statementIndex) append(all []trust.Statement, s signedTag, digest string) []trust.Statement {
	if digest == "" {
		digest = digestText(x.digests[s.digest])
	}
	tag, proofs := x.tagOf(s), x.proofs[s.proofs]
	if all == nil {
		all = make([]trust.Statement, 0, len(proofs)) // mostly of one tag
	}
	for _, p := range proofs {
		all = append(all, trust.Statement{Digest: digest, Tag: tag, Role: p.role, Keys: p.keys, NotAfter: p.notAfter})
	}
	return all
}

func (x *statementIndex) tagOf(s signedTag) string { return x.tags[s.tag : s.tag+s.length] }

// tagRange returns the range of signed that is about a tag.
func (x *statementIndex) tagRange(tag string) (from, to int) {
	from, _ = slices.BinarySearchFunc(x.signed, tag,
		func(s signedTag, tag string) int { return strings.Compare(x.tagOf(s), tag) })
	for to = from; to < len(x.signed) && x.tagOf(x.signed[to]) == tag; to++ {
	}
	return from, to
}

// digest returns the index in digests of a digest in text. One in capitals is another text.
func (x *statementIndex) digest(text string) (number int, found bool) {
	var digest [sha256.Size]byte
	digits, ok := strings.CutPrefix(text, digestPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(digest)) {
		return 0, false
	}
	for i := range digest {
		high, low := hexDigit(digits[2*i]), hexDigit(digits[2*i+1])
		if high|low > 15 {
			return 0, false
		}
		digest[i] = high<<4 | low
	}
	return slices.BinarySearchFunc(x.digests, digest, compareDigests)
}

// hexDigit returns the value of a lower-case hexadecimal digit, and more than 15 for anything else.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

const digestPrefix = "sha256:"

// digestText formats a digest as registries do. It allocates only the result.
func digestText(digest [sha256.Size]byte) string {
	var b [len(digestPrefix) + 2*sha256.Size]byte
	copy(b[:], digestPrefix)
	hex.Encode(b[len(digestPrefix):], digest[:])
	return string(b[:])
}
