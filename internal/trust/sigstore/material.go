package sigstore

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

const (
	// maxCertificate bounds a certificate in DER. Those of Sigstore have 1 to 2 KiB.
	maxCertificate = 16 << 10
	// maxEntries and maxTimestamps bound what a signature has of each. Clients add one, or two.
	maxEntries, maxTimestamps = 4, 4
	// maxTimestamp bounds a signed timestamp, in bytes. They have 1 to 6 KiB.
	maxTimestamp = 16 << 10
)

// material is what a signature comes with. Nothing of it is verified yet. A part that cannot be
// read has an error, which is the rest of a sentence: certificateErr of one that begins with the
// signature, logErr and timestampErr of one that begins with the entry or timestamp.
type material struct {
	// leaf is the certificate, nil if there is none, and intermediates what follows it.
	leaf           *x509.Certificate
	intermediates  []*x509.Certificate
	certificateErr error

	entries    []*protorekor.TransparencyLogEntry
	needsProof bool // the signed promise of the log to include an entry is not enough
	logErr     error

	timestamps   [][]byte
	timestampErr error
}

// timeless reports whether nothing could say when the signature was made.
func (m *material) timeless() bool {
	return len(m.entries) == 0 && len(m.timestamps) == 0 && m.logErr == nil && m.timestampErr == nil
}

// extras are the annotations of a signature in the tag layout, beside the signature.
type extras struct {
	// Certificate and Chain are PEM.
	Certificate []byte `json:"certificate,omitempty"`
	Chain       []byte `json:"chain,omitempty"`
	// Log is the JSON of an entry in the transparency log, and Timestamp that of a timestamp.
	Log       []byte `json:"log,omitempty"`
	Timestamp []byte `json:"timestamp,omitempty"`
}

// extrasOf reads the annotations of a layer.
func extrasOf(annotations map[string]string) extras {
	read := func(name string) []byte {
		if annotations[name] == "" {
			return nil
		}
		return []byte(annotations[name])
	}
	return extras{
		Certificate: read(annotationCertificate), Chain: read(annotationChain), Log: read(annotationLog),
		Timestamp: read(annotationTimestamp),
	}
}

// size is the number of bytes.
func (e *extras) bytes() int {
	return len(e.Certificate) + len(e.Chain) + len(e.Log) + len(e.Timestamp)
}

// same reports whether two have the same bytes.
func (e *extras) same(other *extras) bool {
	return bytes.Equal(e.Certificate, other.Certificate) && bytes.Equal(e.Chain, other.Chain) &&
		bytes.Equal(e.Log, other.Log) && bytes.Equal(e.Timestamp, other.Timestamp)
}

// material reads what the annotations have.
func (e *extras) material() *material {
	m := &material{}
	if len(e.Certificate) > 0 {
		m.leaf, m.intermediates, m.certificateErr = readPEM(e.Certificate, e.Chain)
	}
	if len(e.Log) > 0 {
		entry, err := readLogAnnotation(e.Log)
		if err != nil {
			m.logErr = err
		} else {
			m.entries = []*protorekor.TransparencyLogEntry{entry}
		}
	}
	if len(e.Timestamp) > 0 {
		stamp, err := readTimestampAnnotation(e.Timestamp)
		if err != nil {
			m.timestampErr = err
		} else {
			m.timestamps = [][]byte{stamp}
		}
	}
	return m
}

// readPEM reads the certificate and the chain of annotations.
func readPEM(leaf, chain []byte) (*x509.Certificate, []*x509.Certificate, error) {
	block, rest := pem.Decode(leaf)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, errors.New("has a certificate that is not PEM")
	}
	var all [][]byte
	for rest = append(append([]byte{}, rest...), chain...); len(all) <= trustedroot.MaxChain; {
		var next *pem.Block
		if next, rest = pem.Decode(rest); next == nil {
			break
		}
		all = append(all, next.Bytes)
	}
	return readChain(append([][]byte{block.Bytes}, all...))
}

// readChain reads certificates in DER, the leaf first.
func readChain(ders [][]byte) (leaf *x509.Certificate, rest []*x509.Certificate, err error) {
	if len(ders) > trustedroot.MaxChain {
		return nil, nil, fmt.Errorf("has a chain of more than %d certificates", trustedroot.MaxChain)
	}
	for i, der := range ders {
		if len(der) > maxCertificate {
			return nil, nil, fmt.Errorf("has a certificate of more than %d KiB", maxCertificate>>10)
		}
		cert, err := x509.ParseCertificate(der)
		switch {
		case err == nil && i == 0:
			leaf = cert
		case err != nil && i == 0:
			return nil, nil, errors.New("has a certificate that cannot be read")
		case err == nil:
			// Only a key that could have signed the certificate before is worth a comparison.
			if _, err := newKey(cert.PublicKey); err == nil && cert.IsCA {
				rest = append(rest, cert)
			}
		}
	}
	return leaf, rest, nil
}

// readLogAnnotation reads the entry that cosign writes in the tag layout: what the log has signed,
// and its signature.
func readLogAnnotation(text []byte) (*protorekor.TransparencyLogEntry, error) {
	if n, ok := jsonscan.Count(text, maxValues); !ok || n == maxValues {
		return nil, errors.New("it is not JSON")
	}
	var b struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"` //nolint:tagliatelle // as cosign writes it
		}
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, errors.New("it cannot be read")
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil || len(id) == 0 {
		return nil, errors.New("the ID of its log is missing")
	}
	var head struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if json.Unmarshal(b.Payload.Body, &head) != nil {
		return nil, errors.New("its body cannot be read")
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: b.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id},
		KindVersion:       &protorekor.KindVersion{Kind: head.Kind, Version: head.APIVersion},
		IntegratedTime:    b.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: b.SignedEntryTimestamp},
		CanonicalizedBody: b.Payload.Body,
	}, nil
}

// readTimestampAnnotation reads the timestamp that cosign writes in the tag layout.
func readTimestampAnnotation(text []byte) ([]byte, error) {
	if n, ok := jsonscan.Count(text, maxValues); !ok || n == maxValues {
		return nil, errors.New("is not JSON")
	}
	var t struct{ SignedRFC3161Timestamp []byte }
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, errors.New("cannot be read")
	}
	if n := len(t.SignedRFC3161Timestamp); n == 0 || n > maxTimestamp {
		return nil, errors.New("is empty or too large")
	}
	return t.SignedRFC3161Timestamp, nil
}

// bundleMaterial reads the verification material of a bundle.
func bundleMaterial(of *protobundle.VerificationMaterial, entries []*protorekor.TransparencyLogEntry,
	needsProof bool) *material {
	m := &material{needsProof: needsProof, entries: entries}
	var ders [][]byte
	switch content := of.GetContent().(type) {
	case *protobundle.VerificationMaterial_Certificate:
		ders = append(ders, content.Certificate.GetRawBytes())
	case *protobundle.VerificationMaterial_X509CertificateChain:
		for _, cert := range content.X509CertificateChain.GetCertificates() {
			ders = append(ders, cert.GetRawBytes())
		}
	}
	if len(ders) > 0 {
		m.leaf, m.intermediates, m.certificateErr = readChain(ders)
	}
	if len(entries) > maxEntries {
		m.entries, m.logErr = nil, fmt.Errorf("there are more than %d entries", maxEntries)
	}
	stamps := of.GetTimestampVerificationData().GetRfc3161Timestamps()
	if len(stamps) > maxTimestamps {
		m.timestampErr = fmt.Errorf("is one of more than %d", maxTimestamps)
		return m
	}
	for _, stamp := range stamps {
		if signed := stamp.GetSignedTimestamp(); len(signed) > 0 && len(signed) <= maxTimestamp {
			m.timestamps = append(m.timestamps, signed)
		}
	}
	return m
}
