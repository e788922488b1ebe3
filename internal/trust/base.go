package trust

// BaseSubject is the subject of the base of a trust root (Based). No image has it: the names of
// repositories have no spaces.
var BaseSubject = Subject{Repository: "trusted root"} //nolint:gochecknoglobals // a constant

// Based is a Root that may verify signatures with data that it fetches from a server: its base. An
// example is a trusted root that is published by TUF. The base is the evidence of BaseSubject. A
// Root has one state of its base, for ever: a new base makes a new Root.
type Based interface {
	Root
	// HasBase reports whether the TrustRoot has a base.
	HasBase() bool
	// WithBase returns the Root that verifies with a base: with evidence that Fetch, Recheck or
	// Unpack returned for BaseSubject. If base is nil, what rests on it cannot be checked, for the
	// reason that fault gives; if fault is nil too, the base is not loaded yet. WithBase returns
	// the Root itself if its present base is equivalent.
	WithBase(base Evidence, fault *Fault) Root
}
