package notarysign

import (
	"context"
	"fmt"

	"github.com/countersign-dev/countersign/internal/notarykeys"
)

// MissingKeyError is the error of a change that needs a private key that is not here.
type MissingKeyError struct {
	// Role is the role that must sign.
	Role string
	// Need is how many keys must sign, and Have how many of them are here.
	Need, Have int
	// IDs are the keys that are not here.
	IDs []string
}

func (e *MissingKeyError) Error() string {
	s := fmt.Sprintf("%s must be signed by %d of its keys, and the key store has %d; load ", e.Role, e.Need, e.Have)
	if len(e.IDs) == 0 {
		return s + "a key of it"
	}
	for i, id := range e.IDs {
		if i > 0 {
			s += " or "
		}
		s += id
	}
	return s + " with 'trust key load'"
}

// create makes a private key. Publish adds it to the store.
func (r *Repository) create(role, repository string) (*notarykeys.Signer, error) {
	s, err := notarykeys.NewSigner(role, repository)
	if err != nil {
		return nil, fmt.Errorf("making a key of %s: %w", role, err)
	}
	r.created = append(r.created, s)
	r.note("make a key of %s: %s", role, s.ID)
	return s, nil
}

// storeKeys adds the new keys to the store. If one fails, none stays.
func (r *Repository) storeKeys(ctx context.Context) error {
	for _, s := range r.created {
		if err := r.conn.Keys.Add(ctx, s); err != nil {
			return r.removeKeys(fmt.Errorf("storing the new key of %s: %w", s.Role, err))
		}
		r.stored = append(r.stored, s.ID)
	}
	return nil
}

// removeKeys removes the keys that this run has added, because nothing depends on them. It returns
// cause.
func (r *Repository) removeKeys(cause error) error {
	for _, id := range r.stored {
		if err := r.conn.Keys.Remove(id); err != nil {
			cause = fmt.Errorf("%w; and the new key %s could not be removed: %w", cause, id, err)
		}
	}
	r.stored = nil
	return cause
}

// NewKeys returns the keys that Publish makes, or has made.
func (r *Repository) NewKeys() []notarykeys.Key {
	var keys []notarykeys.Key
	for _, s := range r.created {
		keys = append(keys, s.Key)
	}
	return keys
}
