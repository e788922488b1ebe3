package identity

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Signer is a signature that was verified, as a threshold counts it.
type Signer struct {
	// Entry names the listed key or identity that the signature counts for. An identity is named
	// by its index in the list, never by the certificate.
	Entry string
	// Key is the hexadecimal SHA-256 of the public key (DER, SubjectPublicKeyInfo).
	Key string
	// Until is when the signature stops to count. Zero: never.
	Until time.Time
}

// Quorum returns as many signers as a threshold needs. No two of them have the same entry or the
// same key. Where there is a choice, they count the longest: until is when the first of them stops
// to count, zero if none does. Signers that no longer count now are left out. If there are too few,
// ok is false, and counted is as many as there are.
func Quorum(signers []Signer, threshold int, now time.Time) (counted []Signer, until time.Time, ok bool) {
	threshold = max(threshold, 1)
	current := slices.DeleteFunc(slices.Clone(signers), func(s Signer) bool {
		return !s.Until.IsZero() && now.After(s.Until)
	})
	slices.SortFunc(current, Signer.compare)
	for i := range current {
		found := pairs(current[:i+1])
		if len(found) == len(counted) {
			continue
		}
		// Only this signer can have made the difference, and of all so far it counts the shortest.
		counted, until = found, current[i].Until
		if len(counted) == threshold {
			return counted, until, true
		}
	}
	return counted, until, false
}

// compare orders signers that count longer first.
func (s Signer) compare(other Signer) int {
	if s.Until.IsZero() != other.Until.IsZero() {
		if s.Until.IsZero() {
			return -1
		}
		return 1
	}
	return cmp.Or(other.Until.Compare(s.Until), strings.Compare(s.Entry, other.Entry),
		strings.Compare(s.Key, other.Key))
}

// pairs returns the largest number of signers of which no two have the same entry or the same key,
// sorted. It is a maximum matching of entries and keys: the order of the signatures, which a
// registry chooses, makes no difference.
func pairs(signers []Signer) []Signer {
	byEntry := map[string][]Signer{}
	for _, s := range signers {
		byEntry[s.Entry] = append(byEntry[s.Entry], s)
	}
	byKey := map[string]Signer{} // the signer that uses a key
	for _, entry := range slices.Sorted(maps.Keys(byEntry)) {
		use(entry, byEntry, byKey, map[string]bool{})
	}
	return slices.SortedFunc(maps.Values(byKey), Signer.compare)
}

// use finds a key for an entry, and moves other entries to other keys for that. tried holds the
// keys that were tried. It reports whether there is one.
func use(entry string, byEntry map[string][]Signer, byKey map[string]Signer, tried map[string]bool) bool {
	for _, s := range byEntry[entry] {
		if tried[s.Key] {
			continue
		}
		tried[s.Key] = true
		user, used := byKey[s.Key]
		if !used || use(user.Entry, byEntry, byKey, tried) {
			byKey[s.Key] = s
			return true
		}
	}
	return false
}
