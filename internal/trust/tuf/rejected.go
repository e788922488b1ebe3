package tuf

import (
	"fmt"
	"slices"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	// maxRejections bounds the rejections that a denial can show.
	maxRejections = 16
	// maxRejectedPaths bounds the paths that are searched for the rejections of a digest.
	maxRejectedPaths = 64
)

// Rejected implements trust.Evidence. It searches the metadata anew.
func (e *evidence) Rejected(names []string, tag, digest string) []trust.Rejection {
	tags, paths := e.root.pathsOf(e.metadata, e.about)
	var all []trust.Rejection
	add := func(r trust.Rejection) {
		if len(all) < maxRejections && (digest == "" || r.Digest == "" || r.Digest == digest) &&
			!slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	searched := 0
	for i, path := range paths {
		if tag != "" && tags[i] != tag || searched == maxRejectedPaths {
			continue
		}
		a := e.metadata.state.Signed(path, e.root.now())
		if digest != "" && e.about.Tag == "" && !lists(a.Signed, digest) {
			continue
		}
		searched++
		for _, name := range names {
			e.root.roles.rejected(name, a, add)
		}
	}
	return all
}

// lists reports whether any file lists a digest.
func lists(signed []tufrepo.Signed, digest string) bool {
	return slices.ContainsFunc(signed, func(s tufrepo.Signed) bool { return digestPrefix+s.SHA256 == digest })
}

// rejected calls add with what does not prove one role, for one path.
func (all roles) rejected(name string, a tufrepo.Answer, add func(trust.Rejection)) {
	r := all.named(name)
	for _, c := range r.claims(a.Signed) {
		if c.proves(&r) {
			continue
		}
		for _, file := range c.files {
			add(trust.Rejection{By: file, Digest: digestPrefix + c.digest, Why: c.why(&r)})
		}
	}
	for i := range a.Signed {
		s := &a.Signed[i]
		switch {
		case s.SHA256 == "" && r.counts(s):
			add(trust.Rejection{By: s.File + ".json", Void: true, Why: "lists the image without a sha256 hash: " +
				"list it with its digest"})
		case s.SHA256 == "" || r.counts(s):
		case s.Role == targetsRole:
			add(trust.Rejection{By: s.File, Digest: digestPrefix + s.SHA256, Why: "which proves no role: sign with a " +
				"delegation of the role (administrators: or name targets in spec.tuf.roles[].delegations of the " +
				"TrustRoot)"})
		case slices.Contains(r.delegations, s.Role):
			add(trust.Rejection{By: s.File, Digest: digestPrefix + s.SHA256, Why: fmt.Sprintf("as a delegation of %q, "+
				"which proves no role: targets must delegate to it (administrators: or name it in "+
				"spec.tuf.roles[].delegations of the TrustRoot)", s.By)})
		}
	}
	for _, rejected := range a.Rejected {
		if slices.Contains(r.delegations, rejected.Role) {
			add(trust.Rejection{By: rejected.File + ".json", Void: true, Why: rejected.Why})
		}
	}
}
