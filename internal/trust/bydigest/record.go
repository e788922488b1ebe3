package bydigest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/hint"
)

// record is the record of one repository.
type record struct {
	Subjects []recorded `json:"subjects"`
}

// recorded is one subject of a record: a tag with the answer about it, or a digest with its
// signatures.
type recorded struct {
	Tag        string          `json:"tag,omitempty"`
	Digest     string          `json:"digest,omitempty"`
	Tenant     string          `json:"tenant,omitempty"`
	Answer     json.RawMessage `json:"answer,omitempty"`
	Signatures []byte          `json:"signatures,omitempty"`
}

// Pack implements trust.Keeper. Evidence without signatures, and the answer that there is no such
// tag, are not recorded.
func (r *Root) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	var out record
	for _, about := range slices.SortedFunc(maps.Keys(held), trust.Subject.Compare) {
		one := recorded{Tag: about.Tag, Digest: about.Digest, Tenant: about.Tenant}
		switch e := held[about].(type) {
		case trust.Unsigned:
			continue
		case *hint.Evidence:
			if len(e.Hints(about.Tag)) == 0 {
				continue
			}
			answer, err := json.Marshal(e)
			if err != nil {
				return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: encoding the answer: %w", about, err)
			}
			one.Answer = answer
		default:
			signatures, err := r.Verifier.Pack(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", about, err)
			}
			if signatures == nil {
				continue
			}
			one.Signatures = signatures
		}
		out.Subjects = append(out.Subjects, one)
	}
	if len(out.Subjects) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "encoding the record: %w", err)
	}
	return data, nil
}

// Unpack implements trust.Keeper. A subject that cannot be used does not spoil the others: it is
// left out, and its fault is returned only where none could be used. So are the subjects of tenants
// if no pull secrets are in use.
func (r *Root) Unpack(repository trust.Subject, packed []byte, held map[trust.Subject]trust.Evidence) (
	map[trust.Subject]trust.Evidence, error) {
	var in record
	if err := json.Unmarshal(packed, &in); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: decoding the record: %w", repository, err)
	}
	found, faults := map[trust.Subject]trust.Evidence{}, []error(nil)
	for _, one := range in.Subjects {
		about := repository
		about.Tag, about.Digest, about.Tenant = one.Tag, one.Digest, one.Tenant
		if about.Tenant != "" && r.Keychain == nil {
			continue // it was read with pull secrets, which are no longer in use
		}
		evidence, err := r.unpack(about, one, held[about])
		if err != nil {
			faults = append(faults, err)
			continue
		}
		found[about] = evidence
	}
	if len(found) == 0 && len(faults) > 0 {
		f := trust.AsFault(faults[0], v1alpha1.ReasonMetadataInvalid)
		return nil, f.Within("%w", errors.Join(faults...))
	}
	return found, nil
}

// unpack verifies one subject of a record.
func (r *Root) unpack(about trust.Subject, one recorded, held trust.Evidence) (trust.Evidence, error) {
	switch {
	case about.Tag != "" && about.Digest == "" && one.Answer != nil:
		answer, err := r.tags().Read(about.Tag, one.Answer)
		if err != nil {
			return nil, err
		}
		if have, ok := held.(*hint.Evidence); ok {
			answer = hint.Newer(have, answer)
		}
		return answer, nil
	case about.Tag == "" && imageref.ValidDigest(about.Digest) && one.Signatures != nil:
		return r.Verifier.Unpack(about, one.Signatures, held)
	}
	return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record has no such subject", about)
}
