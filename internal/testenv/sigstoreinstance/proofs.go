package sigstoreinstance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/digitorus/timestamp"
	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
)

// Signed is a signature that a log lists.
type Signed struct {
	Signature []byte
	// Certificate or Key is what the log lists the signer as.
	Certificate *x509.Certificate
	Key         crypto.PublicKey
	// Message is what was signed. Payload is the statement in an envelope, if it is one: the
	// message is then its encoding (PAE).
	Message, Payload []byte
}

// verifierPEM returns the signer as Rekor v1 has it.
func (s *Signed) verifierPEM(i *Instance) []byte {
	if s.Certificate != nil {
		return []byte(PEM(s.Certificate))
	}
	der, err := x509.MarshalPKIXPublicKey(s.Key)
	i.check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// EntryV1 returns an entry of Rekor v1 at a time, with a promise and a proof of inclusion: a
// hashedrekord, or for an envelope a dsse.
func (i *Instance) EntryV1(s *Signed, at time.Time) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	kind, sum := "hashedrekord", sha256.Sum256(s.Message)
	spec := map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
		"signature": map[string]any{"content": s.Signature, "publicKey": map[string]any{"content": s.verifierPEM(i)}},
	}
	if s.Payload != nil {
		payload := sha256.Sum256(s.Payload)
		kind = "dsse"
		hash := map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(payload[:])}
		spec = map[string]any{
			"envelopeHash": hash, "payloadHash": hash,
			"signatures": []any{map[string]any{"signature": s.Signature, "verifier": s.verifierPEM(i)}},
		}
	}
	return i.LogV1(kind, "0.0.1", i.json(map[string]any{"apiVersion": "0.0.1", "kind": kind, "spec": spec}), at)
}

func (i *Instance) json(v any) []byte {
	text, err := json.Marshal(v)
	i.check(err)
	return text
}

// LogV1 returns an entry of Rekor v1 with a body.
func (i *Instance) LogV1(kind, version string, body []byte, at time.Time) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	e := &protorekor.TransparencyLogEntry{
		LogIndex: 7, LogId: &protocommon.LogId{KeyId: i.RekorV1.ID()}, IntegratedTime: at.Unix(),
		KindVersion:       &protorekor.KindVersion{Kind: kind, Version: version},
		CanonicalizedBody: body,
	}
	set := i.json(map[string]any{
		"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logIndex": 7,
		"logID": hex.EncodeToString(i.RekorV1.ID()),
	})
	sum := sha256.Sum256(set)
	promise, err := ecdsa.SignASN1(rand.Reader, i.RekorV1.Key, sum[:])
	i.check(err)
	e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	origin := i.RekorV1.host()
	sum = sha256.Sum256(append([]byte{0}, body...))
	other := sha256.Sum256([]byte("another leaf"))
	treeHead := sha256.Sum256(bytes.Join([][]byte{{1}, other[:], sum[:]}, nil))
	text := fmt.Sprintf("%s - 123\n2\n%s\n", origin, base64.StdEncoding.EncodeToString(treeHead[:]))
	head := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, i.RekorV1.Key, head[:])
	i.check(err)
	line := base64.StdEncoding.EncodeToString(append(i.RekorV1.ID()[:4], sig...))
	e.InclusionProof = &protorekor.InclusionProof{
		LogIndex: 1, TreeSize: 2, RootHash: treeHead[:], Hashes: [][]byte{other[:]},
		Checkpoint: &protorekor.Checkpoint{Envelope: fmt.Sprintf("%s\n— %s %s\n", text, origin, line)},
	}
	return e
}

// EntryV2 returns an entry of Rekor v2, which has no time.
func (i *Instance) EntryV2(s *Signed) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	sum := sha256.Sum256(s.Message)
	verifier := map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if s.Certificate != nil {
		verifier["x509Certificate"] = map[string]any{"rawBytes": s.Certificate.Raw}
	} else {
		der, err := x509.MarshalPKIXPublicKey(s.Key)
		i.check(err)
		verifier["publicKey"] = map[string]any{"rawBytes": der}
	}
	body := i.json(map[string]any{
		"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{"hashedRekordV002": map[string]any{
			"data":      map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
			"signature": map[string]any{"content": s.Signature, "verifier": verifier},
		}},
	})
	leaf := sha256.Sum256(append([]byte{0}, body...))
	log := i.RekorV2
	by, err := signature.LoadECDSASigner(log.Key, crypto.SHA256)
	i.check(err)
	signer, err := rekornote.NewNoteSigner(context.Background(), log.host(), by)
	i.check(err)
	checkpoint, err := note.Sign(&note.Note{
		Text: fmt.Sprintf("%s\n1\n%s\n", log.host(), base64.StdEncoding.EncodeToString(leaf[:])),
	}, signer)
	i.check(err)
	return &protorekor.TransparencyLogEntry{
		LogId:       &protocommon.LogId{KeyId: log.ID()},
		KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: leaf[:], Checkpoint: &protorekor.Checkpoint{Envelope: string(checkpoint)},
		},
		CanonicalizedBody: body,
	}
}

// Timestamp returns a timestamp of the authority on a signature, as RFC 3161 has it.
func (i *Instance) Timestamp(sig []byte, at time.Time) []byte {
	i.t.Helper()
	sum := sha256.Sum256(sig)
	response, err := i.stamp(sum[:], at)
	i.check(err)
	return response
}

// stamp returns a timestamp on a SHA-256.
func (i *Instance) stamp(sum []byte, at time.Time) ([]byte, error) {
	stamp := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: sum, Time: at, AddTSACertificate: true,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
	}
	return stamp.CreateResponseWithOpts(i.TSA.Leaf, i.TSA.leafKey, crypto.SHA256)
}

// TimestampAuthority is the timestamp authority as a server, as RFC 3161 has it. All its timestamps
// have one time.
func (i *Instance) TimestampAuthority(at time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request, err := timestamp.ParseRequest(body)
		if err != nil || request.HashAlgorithm != crypto.SHA256 {
			http.Error(w, "not a request for a timestamp on a SHA-256", http.StatusBadRequest)
			return
		}
		response, err := i.stamp(request.HashedMessage, at)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(response) // a client that has gone away reports that itself
	})
}

// withSCT issues a certificate with the timestamp of a log. The log signs the certificate without
// the extension.
func (i *Instance) withSCT(template *x509.Certificate, public crypto.PublicKey, c Certificate) *x509.Certificate {
	i.t.Helper()
	log := c.CT
	if log == nil {
		log = i.CT
	}
	bare := template.ExtraExtensions
	sctList := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2} // RFC 6962, 3.3
	issue := func(value []byte) *x509.Certificate {
		template.ExtraExtensions = append(bare[:len(bare):len(bare)], pkix.Extension{Id: sctList, Value: value})
		return i.sign(template, i.Fulcio.Intermediate, public, i.Fulcio.key)
	}
	parse := func(der []byte) *ctx509.Certificate {
		cert, err := ctx509.ParseCertificate(der)
		if ctx509.IsFatal(err) {
			i.t.Fatal(err)
		}
		return cert
	}
	sct := &ct.SignedCertificateTimestamp{Timestamp: uint64(c.NotBefore.UnixMilli())}
	copy(sct.LogID.KeyID[:], log.ID())
	chain := []*ctx509.Certificate{parse(issue(nil).Raw), parse(i.Fulcio.Intermediate.Raw)}
	leaf, err := ct.MerkleTreeLeafForEmbeddedSCT(chain, sct.Timestamp)
	i.check(err)
	input, err := ct.SerializeSCTSignatureInput(*sct, ct.LogEntry{Leaf: *leaf})
	i.check(err)
	if c.BadSCT {
		input = append(input, 0)
	}
	sum := sha256.Sum256(input)
	sig, err := ecdsa.SignASN1(rand.Reader, log.Key, sum[:])
	i.check(err)
	sct.Signature = ct.DigitallySigned{
		Algorithm: tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}, Signature: sig,
	}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{sct})
	i.check(err)
	encoded, err := tls.Marshal(*list)
	i.check(err)
	value, err := asn1.Marshal(encoded)
	i.check(err)
	return issue(value)
}
