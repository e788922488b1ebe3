package sigstore

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"

	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// maxDepth bounds the nesting of a timestamp's values.
const maxDepth = 24

// verifyTimestamps returns the times at which a timestamp authority of the trusted root has seen a
// signature. A timestamp that is not valid, or by another authority, is none.
func verifyTimestamps(c *claim, revoked map[string]bool, trusted *trustedroot.Root) []time.Time {
	var times []time.Time
	for _, signed := range c.material.timestamps {
		if !usable(signed, c.signature, revoked) {
			continue
		}
		for _, authority := range trusted.TimestampingAuthorities() {
			if at, err := authority.Verify(signed, c.signature); err == nil {
				times = append(times, at.Time)
				break
			}
		}
	}
	return times
}

// usable reports whether a timestamp is about a signature, has no certificate with a revoked key,
// and takes a bounded time to verify: it brings certificates of its own.
func usable(signed, signature []byte, revoked map[string]bool) bool {
	var response struct {
		Status asn1.RawValue
		Token  asn1.RawValue
	}
	if rest, err := asn1.Unmarshal(signed, &response); err != nil || len(rest) > 0 || !isDER(signed, maxDepth) {
		return false
	}
	message, err := pkcs7.Parse(response.Token.FullBytes)
	if err != nil || len(message.Signers) != 1 || len(message.Certificates) > trustedroot.MaxChain {
		return false
	}
	for _, cert := range message.Certificates {
		if _, err := newKey(cert.PublicKey); err != nil || isRevoked(cert, revoked) {
			return false
		}
	}
	stamp, err := timestamp.ParseResponse(signed)
	if err != nil {
		return false
	}
	switch stamp.HashAlgorithm {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return false
	}
	h := stamp.HashAlgorithm.New()
	h.Write(signature)
	return bytes.Equal(h.Sum(nil), stamp.HashedMessage)
}

// isDER reports whether data are values in DER, with a nesting of at most depth. The parser of
// timestamps accepts other encodings too, recursively.
func isDER(data []byte, depth int) bool {
	for len(data) > 0 {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(data, &value)
		if err != nil || value.IsCompound && (depth == 0 || !isDER(value.Bytes, depth-1)) {
			return false
		}
		data = rest
	}
	return true
}
