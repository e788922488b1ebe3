package sigstore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

const (
	// maxEntry bounds the body of a log entry, and maxProof the hashes of its proof.
	maxEntry, maxProof = 32 << 10, 64
	// maxCheckpoint bounds a checkpoint, in bytes.
	maxCheckpoint = 16 << 10
)

// logged is what the transparency logs of the trusted root say about a signature.
type logged struct {
	entries int // that were verified
	unknown int // of logs that the trusted root does not list
	times   []time.Time
	// windows are the logs whose entry has no time of its own.
	windows []*root.TransparencyLog
}

// verifyLogs verifies the log entries of a signature by a key. An entry of a log that the trusted
// root does not list is no entry. Any other that is not valid is an error, in the rest of a
// sentence that begins with the signer and "but": the whole signature does not count.
func verifyLogs(c *claim, by *key, listed bool, trusted *trustedroot.Root) (logged, error) {
	var l logged
	if c.material.logErr != nil {
		return l, fmt.Errorf("its log entry is not valid: %w", c.material.logErr)
	}
	for _, entry := range c.material.entries {
		log := trusted.RekorLogs()[hex.EncodeToString(entry.GetLogId().GetKeyId())]
		if log == nil {
			l.unknown++
			continue
		}
		at, err := verifyEntry(c, by, listed, entry, &oneKey{TrustedMaterial: trusted, key: by})
		if err != nil {
			return l, fmt.Errorf("its log entry is not valid: %w", err)
		}
		l.entries++
		if at.IsZero() {
			l.windows = append(l.windows, log)
		} else {
			l.times = append(l.times, at)
		}
	}
	return l, nil
}

// verifyEntry verifies one entry. The time is that at which the log has signed the entry, zero if
// it has signed none.
func verifyEntry(c *claim, by *key, listed bool, entry *protorekor.TransparencyLogEntry, trusted *oneKey) (time.Time,
	error) {
	b, err := readBody(entry)
	if err != nil {
		return time.Time{}, err
	}
	if c.material.needsProof && entry.GetInclusionProof() == nil {
		return time.Time{}, errors.New("the proof of inclusion is missing")
	}
	if !bytes.Equal(b.signature, c.signature) {
		return time.Time{}, errors.New("it is about another signature")
	}
	signed := &entryContent{leaf: c.material.leaf, public: by.public, listed: listed}
	if !signed.CompareKey(b.verifier, nil) {
		return time.Time{}, errors.New("it is about the signature of another key or certificate")
	}
	content, err := c.content(b.hash)
	if err != nil {
		return time.Time{}, err
	}
	parsed, err := tlog.ParseTransparencyLogEntry(entry)
	if err != nil {
		return time.Time{}, errors.New(shown(err.Error()))
	}
	if parsed.IsRekorV2() != b.v2 || entry.GetInclusionProof() != nil && b.v2 == isV1Checkpoint(entry) {
		return time.Time{}, errors.New("its checkpoint is of another kind of log")
	}
	if parsed.HasInclusionPromise() { // for the text of the error: below, it would count as no entry
		if err := tlog.VerifySET(parsed, trusted.RekorLogs()); err != nil {
			return time.Time{}, fmt.Errorf("the promise of inclusion: %s", shown(err.Error()))
		}
	}
	times, err := verify.VerifyTlogEntry(&logEntity{content: content, signed: signed, entry: parsed}, trusted, 1, true)
	if err != nil {
		return time.Time{}, errors.New(shown(err.Error()))
	}
	if len(times) == 0 {
		return time.Time{}, nil
	}
	return times[0].Time, nil
}

// v1Origin is the first line of the checkpoints of Rekor v1: a name and the number of the tree.
var v1Origin = regexp.MustCompile(`^.* - [0-9]+$`)

func isV1Checkpoint(entry *protorekor.TransparencyLogEntry) bool {
	first, _, _ := strings.Cut(entry.GetInclusionProof().GetCheckpoint().GetEnvelope(), "\n")
	return v1Origin.MatchString(first)
}

// body is what is read of the body of a log entry.
type body struct {
	v2        bool
	signature []byte
	verifier  any // *x509.Certificate or a public key
	hash      string
}

// readBody reads the body of a log entry, of the kinds that clients write for signatures. It is
// strict, and comes before the parsers of the logs' own types: these accept proposals too, whose
// signatures they verify one by one, and read fields that may be missing.
func readBody(entry *protorekor.TransparencyLogEntry) (*body, error) {
	text := entry.GetCanonicalizedBody()
	proof := entry.GetInclusionProof()
	if len(text) > maxEntry || len(proof.GetHashes()) > maxProof ||
		len(proof.GetCheckpoint().GetEnvelope()) > maxCheckpoint {
		return nil, errors.New("it is too large")
	}
	if proof != nil && proof.GetCheckpoint().GetEnvelope() == "" {
		return nil, errors.New("the checkpoint is missing")
	}
	parts, err := members(text, "apiVersion", "kind", "spec")
	if err != nil {
		return nil, err
	}
	var kind, version string
	if json.Unmarshal(parts["kind"], &kind) != nil || json.Unmarshal(parts["apiVersion"], &version) != nil {
		return nil, errors.New("its kind cannot be read")
	}
	switch kind + " " + version {
	case "hashedrekord 0.0.1":
		return readHashedRekord(parts["spec"])
	case "dsse 0.0.1":
		return readDSSE(parts["spec"])
	case "intoto 0.0.2":
		return readInToto(parts["spec"])
	case "hashedrekord 0.0.2":
		return readHashedRekordV2(parts["spec"])
	}
	return nil, fmt.Errorf("it is of the kind %q, which is not of signatures", shown(kind+" "+version))
}

func readHashedRekord(spec []byte) (*body, error) {
	if _, err := members(spec, "data", "signature"); err != nil {
		return nil, err
	}
	var s struct {
		Data struct {
			Hash struct{ Algorithm, Value string }
		}
		Signature struct {
			Content   []byte
			PublicKey struct{ Content []byte }
		}
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return nil, errUnreadableEntry
	}
	return bodyOf(s.Signature.Content, s.Signature.PublicKey.Content, s.Data.Hash.Algorithm)
}

func readDSSE(spec []byte) (*body, error) {
	if _, err := members(spec, "envelopeHash", "payloadHash", "signatures"); err != nil {
		return nil, err
	}
	var s struct {
		Signatures []struct{ Signature, Verifier []byte }
	}
	if err := json.Unmarshal(spec, &s); err != nil || len(s.Signatures) != 1 {
		return nil, errUnreadableEntry
	}
	return bodyOf(s.Signatures[0].Signature, s.Signatures[0].Verifier, "sha256")
}

func readInToto(spec []byte) (*body, error) {
	parts, err := members(spec, "content")
	if err != nil {
		return nil, err
	}
	if parts, err = members(parts["content"], "envelope", "hash", "payloadHash"); err != nil {
		return nil, err
	}
	if _, err = members(parts["envelope"], "payloadType", "signatures"); err != nil {
		return nil, err
	}
	var s struct {
		Signatures []struct{ Sig, PublicKey []byte }
	}
	if err := json.Unmarshal(parts["envelope"], &s); err != nil || len(s.Signatures) != 1 {
		return nil, errUnreadableEntry
	}
	// The entry has the base64 of the signature, in base64.
	sig := make([]byte, len(s.Signatures[0].Sig))
	n, err := base64.StdEncoding.Decode(sig, s.Signatures[0].Sig)
	if err != nil {
		return nil, errUnreadableEntry
	}
	return bodyOf(sig[:n], s.Signatures[0].PublicKey, "sha256")
}

func readHashedRekordV2(spec []byte) (*body, error) {
	parts, err := members(spec, "hashedRekordV002")
	if err != nil {
		return nil, err
	}
	var s struct {
		Data      struct{ Algorithm string }
		Signature struct {
			Content  []byte
			Verifier struct {
				PublicKey       *struct{ RawBytes []byte }
				X509Certificate *struct{ RawBytes []byte }
			}
		}
	}
	if err := json.Unmarshal(parts["hashedRekordV002"], &s); err != nil {
		return nil, errUnreadableEntry
	}
	b := &body{v2: true, signature: s.Signature.Content, hash: s.Data.Algorithm}
	switch v := s.Signature.Verifier; {
	case v.PublicKey != nil && v.X509Certificate == nil:
		b.verifier, err = x509.ParsePKIXPublicKey(v.PublicKey.RawBytes)
	case v.X509Certificate != nil && v.PublicKey == nil:
		b.verifier, err = x509.ParseCertificate(v.X509Certificate.RawBytes)
	default:
		err = errUnreadableEntry
	}
	if err != nil || len(b.signature) == 0 {
		return nil, errUnreadableEntry
	}
	return b, nil
}

var errUnreadableEntry = errors.New("its body cannot be read")

// bodyOf returns the body with a verifier in PEM.
func bodyOf(signature, verifier []byte, hash string) (*body, error) {
	block, _ := pem.Decode(verifier)
	if block == nil || len(signature) == 0 {
		return nil, errUnreadableEntry
	}
	b := &body{signature: signature, hash: hash}
	if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
		b.verifier = cert
		return b, nil
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errUnreadableEntry
	}
	b.verifier = public
	return b, nil
}

// members returns the members of a JSON object. Each must be one of the allowed names, none may
// occur twice, and all must be there: parsers differ in what they make of others.
func members(text []byte, allowed ...string) (map[string][]byte, error) {
	all, ok := map[string][]byte{}, true
	s := jsonscan.Scanner{Text: text}
	s.SkipSpace()
	s.Members(func(key []byte) {
		from := s.Next
		s.Skip()
		name := strings.Trim(string(key), `"`)
		if s.Invalid || all[name] != nil {
			ok = false
			return
		}
		all[name] = bytes.TrimSpace(s.Text[from:s.Next])
	})
	s.End()
	if !ok || s.Invalid || len(all) != len(allowed) {
		return nil, errUnreadableEntry
	}
	for _, name := range allowed {
		if all[name] == nil {
			return nil, errUnreadableEntry
		}
	}
	return all, nil
}

// entryContent says who has made the signature of a log entry. It is the verify.VerificationContent
// of a signature by a key, with the certificate that it came with, if there is one.
type entryContent struct {
	leaf   *x509.Certificate
	public crypto.PublicKey
	// listed says that the key itself counts: the entry may then have it in a certificate or not.
	listed bool
}

var _ verify.VerificationContent = (*entryContent)(nil)

// CompareKey implements verify.VerificationContent.
func (e *entryContent) CompareKey(other any, _ root.TrustedMaterial) bool {
	cert, ok := other.(*x509.Certificate)
	if ok && e.leaf != nil && cert.Equal(e.leaf) {
		return true
	}
	if !e.listed {
		return false
	}
	if ok {
		other = cert.PublicKey
	}
	own, ok := e.public.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && own.Equal(other)
}

// ValidAtTime implements verify.VerificationContent: the caller compares the time.
func (*entryContent) ValidAtTime(time.Time, root.TrustedMaterial) bool { return true }

// Certificate implements verify.VerificationContent.
func (e *entryContent) Certificate() *x509.Certificate { return e.leaf }

// Intermediates implements verify.VerificationContent.
func (*entryContent) Intermediates() []*x509.Certificate { return nil }

// PublicKey implements verify.VerificationContent.
func (e *entryContent) PublicKey() verify.PublicKeyProvider {
	if e.leaf != nil {
		return nil
	}
	return anyHint{}
}

// logEntity is a signature with a single log entry.
type logEntity struct {
	verify.BaseSignedEntity
	content verify.SignatureContent
	signed  *entryContent
	entry   *tlog.Entry
}

// SignatureContent implements verify.SignedEntity.
func (e *logEntity) SignatureContent() (verify.SignatureContent, error) { return e.content, nil }

// VerificationContent implements verify.SignedEntity.
func (e *logEntity) VerificationContent() (verify.VerificationContent, error) { return e.signed, nil }

// TlogEntries implements verify.SignedEntity.
func (e *logEntity) TlogEntries() ([]*tlog.Entry, error) { return []*tlog.Entry{e.entry}, nil }
