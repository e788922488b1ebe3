package notary

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxCACertificates bounds the certificates of a CA bundle.
const maxCACertificates = 64

var hexKeyID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// PEM is key material with its origin, so that an error can name the field:
// "spec.notary.root.keys[1]", or a Secret and its entry.
type PEM struct {
	Field string
	Data  string
}

// Config is a TrustRoot of the format with the data of its references. At least one of RootKeys,
// RootKeyIDs and RootCA is required.
type Config struct {
	// Name is the name of the TrustRoot.
	Name string
	// RootKeys are public keys or certificates, each one PEM block. Of a certificate only the key
	// counts.
	RootKeys []PEM
	// RootKeyIDs are canonical key IDs of root keys.
	RootKeyIDs []string
	// RootCA holds PEM certificates that the certificate of a root key must chain to. Empty Data:
	// none.
	RootCA PEM
	// Roles are the roles that are not the delegation of the same name.
	Roles []Role
	// Remaps map a repository to the name under which it is signed.
	Remaps trust.Remaps
	// RevokedKeys are canonical key IDs that never count, whatever the metadata says.
	RevokedKeys []string
	// ExpiredGrace is how long evidence counts after its expiry, when it is verified again without
	// a network. Fetched files have no grace.
	ExpiredGrace time.Duration
	// Budget bounds the memory of decoding. Several Roots can share it. Nil: the Root has its own.
	Budget *budget.Budget
	// Clock returns the time for expiry checks. Nil: time.Now.
	Clock func() time.Time
}

// Role maps a role of a policy to delegations and keys.
type Role struct {
	Name string
	// Delegations are Notary roles: delegations, or "targets" itself. Empty: targets/<Name>.
	Delegations []string
	// Threshold is how many distinct keys of the delegations must have signed. It is at least 1.
	Threshold int
	// Keys, if given, are the only keys that count for the role.
	Keys []PEM
}

// Root verifies the repositories of one Notary server under one TrustRoot. It implements
// trust.Root. The verified state is in the evidence that it returns. The Root itself keeps only
// whether the server has proven to be a Notary server.
type Root struct {
	name           string
	getter         Getter
	now            func() time.Time
	budget         *budget.Budget
	transfers      *semaphore.Weighted // bounds the bytes of targets and delegations of all sessions
	grace          time.Duration
	pins           map[string]bool // canonical key IDs
	ca             *x509.CertPool  // nil without one
	caFingerprints []string
	roles          []mappedRole
	roleNames      map[string]bool // names of roles
	remaps         trust.Remaps
	revoked        map[string]bool // key IDs
	identity       *serverIdentity
	notes          []string
	compressors    *sync.Pool // of *gzip.Writer: a new one allocates 800 KB
}

// mappedRole is a compiled Role.
type mappedRole struct {
	role        string
	delegations []string
	threshold   int
	keys        map[string]bool // canonical key IDs; nil: any
}

// New compiles a TrustRoot. It sends no request. The error is a *trust.Fault with reason InvalidKey
// or InvalidSpec, which names the field.
func New(cfg Config, get Getter) (*Root, error) {
	r := &Root{
		name: cfg.Name, getter: get, now: cfg.Clock, grace: max(cfg.ExpiredGrace, 0), remaps: cfg.Remaps,
		budget: cfg.Budget, transfers: semaphore.NewWeighted(2 * maxTotalSize),
		pins: map[string]bool{}, roleNames: map[string]bool{}, revoked: map[string]bool{},
		identity: &serverIdentity{}, compressors: &sync.Pool{},
	}
	if r.budget == nil {
		r.budget = budget.New(budget.Default)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if err := r.pin(cfg); err != nil {
		return nil, err
	}
	for i, role := range cfg.Roles {
		if err := r.addRole(fmt.Sprintf("spec.notary.roles[%d]", i), role); err != nil {
			return nil, err
		}
	}
	for i, id := range cfg.RevokedKeys {
		if !hexKeyID.MatchString(id) {
			return nil, invalidKeyID(fmt.Sprintf("spec.revokedKeys[%d]", i), id)
		}
		r.revoked[id] = true
	}
	return r, nil
}

// pin reads the pinned root keys, key IDs and CA certificates.
func (r *Root) pin(cfg Config) error {
	for _, p := range cfg.RootKeys {
		k, err := parsePEMKey(p.Data)
		if err != nil {
			return trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", p.Field, err)
		}
		r.pins[k.canonical] = true
	}
	for i, id := range cfg.RootKeyIDs {
		if !hexKeyID.MatchString(id) {
			return invalidKeyID(fmt.Sprintf("spec.notary.root.keyIDs[%d]", i), id)
		}
		r.pins[id] = true
	}
	if cfg.RootCA.Data != "" {
		bundle, err := cabundle.Read([]byte(cfg.RootCA.Data), maxCACertificates, isCA)
		if err != nil {
			return trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", cfg.RootCA.Field, err)
		}
		r.ca = bundle.Pool()
		for _, c := range bundle.Certificates {
			sum := sha256.Sum256(c.Raw)
			r.caFingerprints = append(r.caFingerprints, hex.EncodeToString(sum[:]))
		}
		for _, skipped := range bundle.Skipped {
			r.notes = append(r.notes, fmt.Sprintf("%s: skipped %s", cfg.RootCA.Field, skipped))
		}
	}
	if len(r.pins) == 0 && r.ca == nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec,
			"spec.notary.root: pin at least one key, key ID or CA; there is no trust on first use")
	}
	return nil
}

func isCA(c *x509.Certificate) error {
	if !c.IsCA {
		return errors.New("it is not a CA certificate")
	}
	return nil
}

// Notes returns the parts of the configuration that do not count, and why.
func (r *Root) Notes() []string { return r.notes }

// addRole compiles a role. at is the field of the role in the TrustRoot.
func (r *Root) addRole(at string, role Role) error {
	s := mappedRole{role: role.Name, threshold: role.Threshold, delegations: slices.Clone(role.Delegations)}
	if len(s.delegations) == 0 {
		s.delegations = []string{targetsRole + "/" + role.Name}
	}
	invalid := func(format string, args ...any) error {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.%w", at, fmt.Errorf(format, args...))
	}
	switch {
	case role.Name == "" || r.roleNames[role.Name]:
		return invalid("name: %q is empty or used twice", role.Name)
	case s.threshold < 1:
		return invalid("threshold: %d; it must be at least 1", s.threshold)
	}
	for i, d := range s.delegations {
		if err := checkMappable(d); err != nil {
			return invalid("delegations[%d]: %w", i, err)
		}
	}
	slices.Sort(s.delegations)
	s.delegations = slices.Compact(s.delegations)
	for _, p := range role.Keys {
		k, err := parsePEMKey(p.Data)
		if err != nil {
			return trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", p.Field, err)
		}
		if s.keys == nil {
			s.keys = map[string]bool{}
		}
		s.keys[k.canonical] = true
	}
	r.roleNames[role.Name] = true
	r.roles = append(r.roles, s)
	return nil
}

// checkMappable returns an error if a Notary role must not be mapped to a role of a policy.
func checkMappable(name string) error {
	if name == releasesRole || strings.HasPrefix(name, releasesRole+"/") {
		return errors.New(
			"targets/releases is signed by any one of all signers and proves no role; name the signer's own delegation")
	}
	if name == targetsRole {
		return nil
	}
	return checkDelegation(name)
}

func invalidKeyID(field, id string) error {
	return trust.NewFault(v1alpha1.ReasonInvalidKey,
		"%s: %q is not a key ID: 64 lower-case hexadecimal digits, as 'docker trust inspect' prints it", field, id)
}

// Anchors implements trust.Anchors. It returns the pinned keys.
func (r *Root) Anchors() []string { return slices.Sorted(maps.Keys(r.pins)) }

// Fingerprints returns the pins of the root of trust, sorted: canonical key IDs, and the SHA-256 of
// the certificates of the CA bundle in hexadecimal.
func (r *Root) Fingerprints() []string {
	out := slices.Concat(slices.Collect(maps.Keys(r.pins)), r.caFingerprints)
	slices.Sort(out)
	return slices.Compact(out)
}
