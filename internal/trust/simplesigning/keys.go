package simplesigning

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	minRSABits = 2048
	// maxRSABits bounds the time of a signature check, which otherwise could take seconds.
	maxRSABits = 8192
	// maxKeyring bounds the keys of one source, in bytes.
	maxKeyring = 256 << 10
	// maxSubkeys bounds the subkeys of a key.
	maxSubkeys = 64

	keyBlock = "-----BEGIN PGP "
)

// key is an OpenPGP key: a primary key and its subkeys.
type key struct {
	id string // the fingerprint of the primary key, in lower-case hexadecimal
	// why says why neither the primary key nor any subkey ever counts: "is revoked".
	why     string
	until   time.Time // when it expires; zero: never
	signers []*signer // the primary key and the subkeys that could sign by their algorithm
}

// signer is a primary key or a subkey.
type signer struct {
	id     string
	of     *key
	public *packet.PublicKey
	why    string // as in key, of this one
	// flagged says that the flags of the key allow it to sign.
	flagged bool
	from    time.Time // when it was made
	until   time.Time // as in key, of this one
}

// expiry returns when signatures by the key stop counting, and the ID of the key that expires then:
// of itself, or of its primary key.
func (s *signer) expiry() (until time.Time, id string) {
	if later(s.of.until, s.until) {
		return s.until, s.id
	}
	return s.of.until, s.of.id
}

// readEntities reads the OpenPGP keys of one source: armored, in one or several blocks, or binary.
func readEntities(data string) ([]*openpgp.Entity, error) {
	if len(data) > maxKeyring {
		return nil, fmt.Errorf("has more than %d KiB; export the keys with '--export-options export-minimal'",
			maxKeyring>>10)
	}
	var all []*openpgp.Entity
	for _, block := range blocks(data) {
		read, err := readBlock(block)
		if err != nil {
			return nil, err
		}
		all = append(all, read...)
	}
	if len(all) == 0 {
		return nil, errors.New("has no OpenPGP key; expected the output of 'gpg --export', armored or binary")
	}
	return all, nil
}

// blocks splits armored keys into their blocks. Binary keys are one block.
func blocks(data string) []string {
	start := strings.Index(data, keyBlock)
	if start < 0 {
		return []string{data}
	}
	var all []string
	for data = data[start:]; data != ""; {
		next := strings.Index(data[len(keyBlock):], keyBlock)
		if next < 0 {
			return append(all, data)
		}
		all, data = append(all, data[:len(keyBlock)+next]), data[len(keyBlock)+next:]
	}
	return all
}

func readBlock(block string) ([]*openpgp.Entity, error) {
	var body io.Reader = strings.NewReader(block)
	if strings.HasPrefix(block, keyBlock) {
		decoded, err := armor.Decode(body)
		switch {
		case err != nil:
			return nil, errors.New("has an armored block that cannot be read; was a part of it lost?")
		case decoded.Type == openpgp.PrivateKeyType:
			return nil, errPrivate
		case decoded.Type != openpgp.PublicKeyType:
			return nil, fmt.Errorf("has a block %q, which is no public key", shown(decoded.Type))
		}
		body = decoded.Body
	}
	binary, err := io.ReadAll(body)
	if err != nil {
		return nil, errors.New("has an armored block that cannot be read; was a part of it lost?")
	}
	if err := checkRevocations(binary); err != nil {
		return nil, err
	}
	var all []*openpgp.Entity
	for packets := packet.NewReader(bytes.NewReader(binary)); ; {
		e, err := openpgp.ReadEntity(packets)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("has an OpenPGP key that cannot be read: %s", shown(err.Error()))
		case e.PrivateKey != nil:
			return nil, errPrivate
		case len(e.Subkeys) > maxSubkeys:
			return nil, fmt.Errorf("has a key with more than %d subkeys", maxSubkeys)
		}
		all = append(all, e)
	}
}

// checkRevocations refuses keys with a revocation that cannot be read, for example because its hash
// is not known: reading the keys would leave it out.
func checkRevocations(keys []byte) error {
	for r := packet.NewOpaqueReader(bytes.NewReader(keys)); ; {
		p, err := r.Next()
		if err != nil {
			return nil //nolint:nilerr // the end, or what reading the keys will refuse
		}
		if p.Tag != tagSignature || len(p.Contents) < 3 {
			continue
		}
		kind := packet.SignatureType(p.Contents[1])
		if p.Contents[0] < 4 {
			kind = packet.SignatureType(p.Contents[2]) // after a length, in version 3
		}
		if kind != packet.SigTypeKeyRevocation && kind != packet.SigTypeSubkeyRevocation {
			continue
		}
		if _, ok := parsed[*packet.Signature](p); !ok {
			return errors.New("has a key with a revocation that cannot be read")
		}
	}
}

var errPrivate = errors.New("has a private key; give the public key, and keep the private key out of the cluster")

// add adds the signatures and subkeys of another copy of a key.
func add(to, from *openpgp.Entity) {
	to.Revocations = append(to.Revocations, from.Revocations...)
	to.DirectSignatures = append(to.DirectSignatures, from.DirectSignatures...)
	for name, more := range from.Identities {
		have := to.Identities[name]
		if have == nil {
			to.Identities[name] = more
			continue
		}
		have.SelfCertifications = append(have.SelfCertifications, more.SelfCertifications...)
		have.Revocations = append(have.Revocations, more.Revocations...)
	}
	for i := range from.Subkeys {
		more := &from.Subkeys[i]
		n := slices.IndexFunc(to.Subkeys, func(s openpgp.Subkey) bool {
			return bytes.Equal(s.PublicKey.Fingerprint, more.PublicKey.Fingerprint)
		})
		if n < 0 {
			to.Subkeys = append(to.Subkeys, *more)
			continue
		}
		to.Subkeys[n].Bindings = append(to.Subkeys[n].Bindings, more.Bindings...)
		to.Subkeys[n].Revocations = append(to.Subkeys[n].Revocations, more.Revocations...)
	}
}

// newKey compiles a key. The error says why it cannot be used at all, in the rest of a sentence
// that begins with the key. What has expired or is revoked is no error: it happens to good keys.
func newKey(e *openpgp.Entity) (*key, error) {
	k := &key{id: fingerprint(e.PrimaryKey)}
	if err := checkAlgorithm(e.PrimaryKey); err != nil {
		return nil, err
	}
	self := newest(selfSignatures(e))
	if self == nil {
		return nil, errors.New("has no self-signature that can be verified on a user ID that is not revoked")
	}
	if err := checkHash(self); err != nil {
		return nil, fmt.Errorf("has a self-signature %w; renew it, for example with 'gpg --cert-digest-algo SHA256 "+
			"--quick-set-expire', and export the key again", err)
	}
	k.until = expiry(e.PrimaryKey, self)
	k.why = revoked(e.Revocations, e.PrimaryKey.VerifyRevocationSignature)
	k.signers = append(k.signers, &signer{
		id: k.id, of: k, public: e.PrimaryKey, flagged: self.FlagsValid && self.FlagSign,
		from: e.PrimaryKey.CreationTime, until: k.until,
	})
	for i := range e.Subkeys {
		if s := newSubkey(k, e, &e.Subkeys[i]); s != nil {
			k.signers = append(k.signers, s)
		}
	}
	if !slices.ContainsFunc(k.signers, func(s *signer) bool { return s.flagged }) {
		return nil, errors.New("may not sign, by its flags, and neither may any of its subkeys")
	}
	return k, nil
}

// newSubkey compiles a subkey. It returns nil for one that cannot sign by its algorithm.
func newSubkey(k *key, e *openpgp.Entity, sub *openpgp.Subkey) *signer {
	if !sub.PublicKey.CanSign() {
		return nil
	}
	s := &signer{id: fingerprint(sub.PublicKey), of: k, public: sub.PublicKey, from: sub.PublicKey.CreationTime}
	var valid []*packet.Signature
	for _, b := range sub.Bindings {
		if e.PrimaryKey.VerifyKeySignature(sub.PublicKey, b.Packet) == nil {
			valid = append(valid, b.Packet)
		}
	}
	binding := newest(valid)
	if binding == nil {
		s.why = "is not bound to its primary key by a signature that can be verified"
		return s
	}
	s.flagged = binding.FlagsValid && binding.FlagSign
	s.until = earlier(expiry(sub.PublicKey, binding), k.until)
	for _, sig := range []*packet.Signature{binding, binding.EmbeddedSignature} {
		if sig != nil {
			if err := checkHash(sig); err != nil && s.why == "" {
				s.why = "is bound to its primary key by a signature " + err.Error()
			}
		}
	}
	if err := checkAlgorithm(sub.PublicKey); err != nil {
		s.why = err.Error()
	}
	why := revoked(sub.Revocations, func(sig *packet.Signature) error {
		return e.PrimaryKey.VerifySubkeyRevocationSignature(sig, sub.PublicKey)
	})
	s.why = cmp.Or(why, s.why)
	return s
}

// selfSignatures returns the verified signatures of a primary key on itself: on its user IDs that
// are not revoked, or directly on the key. Keys of version 6 have only the latter.
func selfSignatures(e *openpgp.Entity) []*packet.Signature {
	var all []*packet.Signature
	for _, s := range e.DirectSignatures {
		if e.PrimaryKey.VerifyDirectKeySignature(s.Packet) == nil {
			all = append(all, s.Packet)
		}
	}
	if e.PrimaryKey.Version >= 6 {
		return all
	}
	for name, id := range e.Identities {
		verified := func(s *packet.VerifiableSignature) bool {
			return e.PrimaryKey.VerifyUserIdSignature(name, e.PrimaryKey, s.Packet) == nil
		}
		for _, s := range id.SelfCertifications {
			withdrawn := slices.ContainsFunc(id.Revocations, func(r *packet.VerifiableSignature) bool {
				return !r.Packet.CreationTime.Before(s.Packet.CreationTime) && verified(r)
			})
			if !withdrawn && verified(s) {
				all = append(all, s.Packet)
			}
		}
	}
	return all
}

// newest returns the newest signature. It replaces the ones before, whatever they say. Of two from
// the same second, it is the one that allows less.
func newest(all []*packet.Signature) *packet.Signature {
	if len(all) == 0 {
		return nil
	}
	return slices.MaxFunc(all, func(a, b *packet.Signature) int {
		return cmp.Or(a.CreationTime.Compare(b.CreationTime), cmp.Compare(strictness(a), strictness(b)))
	})
}

func strictness(s *packet.Signature) int {
	n := 0
	if checkHash(s) != nil {
		n += 4
	}
	if !s.FlagsValid || !s.FlagSign {
		n += 2
	}
	if s.KeyLifetimeSecs != nil && *s.KeyLifetimeSecs > 0 {
		n++
	}
	return n
}

// revoked says why a key is revoked; empty: it is not. A revocation holds for all time, whatever
// its reason: nobody vouches for the time of a signature. It may itself have a weak hash. One that
// the key has not made may be by a designated revoker, whose key is not known here.
func revoked(revocations []*packet.VerifiableSignature, verify func(*packet.Signature) error) string {
	why := ""
	for _, r := range revocations {
		if verify(r.Packet) == nil {
			return "is revoked"
		}
		why = "has a revocation by another key, which cannot be verified here"
	}
	return why
}

// expiry returns when a key expires, by a signature on it; zero: never.
func expiry(public *packet.PublicKey, by *packet.Signature) time.Time {
	return earlier(after(public.CreationTime, by.KeyLifetimeSecs), after(by.CreationTime, by.SigLifetimeSecs))
}

func after(from time.Time, seconds *uint32) time.Time {
	if seconds == nil || *seconds == 0 {
		return time.Time{}
	}
	return from.Add(time.Duration(*seconds) * time.Second)
}

// earlier returns the earlier of two times of expiry, of which the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// checkHash refuses signatures with a hash that is too weak (RFC 9580, section 9.5).
func checkHash(s *packet.Signature) error {
	switch s.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return nil
	case crypto.SHA1:
		return errors.New("with SHA-1, which can be forged")
	default:
		return errors.New("with a hash other than SHA-256, SHA-384, SHA-512 and SHA-3")
	}
}

// checkAlgorithm refuses keys that are too weak to sign, or of an algorithm that is not known here.
func checkAlgorithm(public *packet.PublicKey) error {
	switch public.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		bits, err := public.BitLength()
		if err != nil || bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("is an RSA key of %d bits; it may have %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case packet.PubKeyAlgoECDSA:
		if curve, err := public.Curve(); err != nil || curve == packet.CurveSecP256k1 {
			return errors.New("is an ECDSA key on a curve that is not accepted")
		}
		return nil
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448:
		return nil
	case packet.PubKeyAlgoDSA:
		return errors.New("is a DSA key; use RSA of 2048 bits or more, ECDSA or EdDSA")
	default:
		return errors.New("is of another algorithm than RSA, ECDSA and EdDSA")
	}
}

func fingerprint(public *packet.PublicKey) string { return hex.EncodeToString(public.Fingerprint) }
