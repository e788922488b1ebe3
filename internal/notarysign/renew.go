package notarysign

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Renew signs the files anew that expire within a time, and the certificates of root keys. It
// returns the roles that it could not sign, for want of a key, and warns of each.
func (r *Repository) Renew(ctx context.Context, within time.Duration) (left []string, err error) {
	due := func(at time.Time) bool { return at.Before(r.at.Add(within)) }
	check := func(role string, expires time.Time) (bool, error) {
		if !due(expires) {
			return false, nil
		}
		ready, err := r.canSign(role)
		if err == nil && !ready {
			left = append(left, role)
			r.warn("%s expires at %s, and its key is not here", role, expires.UTC().Format(time.RFC3339))
		}
		return ready, err
	}
	if ok, err := check(RoleRoot, r.rootExpiry()); err != nil {
		return left, err
	} else if ok {
		if err := r.renewRoot(ctx, due); err != nil {
			return left, err
		}
		r.note("sign root anew, until %s", r.root.Expires.Format(time.DateOnly))
	}
	for _, role := range slices.Sorted(maps.Keys(r.files)) {
		entry := r.files[role]
		if entry.raw == nil {
			continue
		}
		if ok, err := check(role, entry.Expires); err != nil {
			return left, err
		} else if ok {
			r.edit(role)
			r.note("sign %s anew, until %s", role, entry.Expires.Format(time.DateOnly))
		}
	}
	r.warnDeeper(due)
	ready, err := r.canSign(RoleSnapshot) // otherwise the server renews it
	if err != nil {
		return left, err
	}
	if due(r.snapshot.Expires) && ready {
		r.snapshotChanged = true
		r.note("sign snapshot anew")
	}
	return left, nil
}

// warnDeeper warns of delegations below those of signers, which this package does not sign.
func (r *Repository) warnDeeper(due func(time.Time) bool) {
	for role, raw := range r.raw {
		var f struct{ header }
		if _, err := decode(raw, &f); strings.Count(role, "/") > 1 && err == nil && due(f.Expires) {
			r.warn("%s expires at %s; sign it with the client that made it", role, f.Expires.UTC().Format(time.RFC3339))
		}
	}
}

// rootExpiry returns when the root or the first certificate of a root key expires.
func (r *Repository) rootExpiry() time.Time {
	end := r.root.Expires
	for _, id := range r.root.Roles[RoleRoot].KeyIDs {
		k, ok := r.root.Keys[id]
		if !ok {
			continue
		}
		if _, cert, err := k.read(); err == nil && cert != nil && cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// renewRoot signs the root anew. A certificate that expires is replaced by a new one of the same
// key.
func (r *Repository) renewRoot(ctx context.Context, due func(time.Time) bool) error {
	var keys []PublicKey
	replaced := false
	for _, id := range r.root.Roles[RoleRoot].KeyIDs {
		k, ok := r.root.Keys[id]
		if !ok {
			continue
		}
		public, cert, err := k.read()
		if err != nil {
			return err
		}
		has, err := r.has(public.ID())
		if err != nil {
			return err
		}
		if cert != nil && due(cert.NotAfter) && has {
			signer, err := r.unlock(ctx, public.ID())
			if err != nil {
				return fmt.Errorf("opening the root key: %w", err)
			}
			if public, err = rootCertificate(signer, r.name, r.at); err != nil {
				return err
			}
			replaced = true
			r.note("make a new certificate of root key %s", public.ID())
		}
		keys = append(keys, public)
	}
	r.editRoot()
	if replaced {
		r.setKeys(RoleRoot, keys...)
	}
	return nil
}
