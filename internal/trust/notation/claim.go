package notation

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	gocose "github.com/veraison/go-cose"

	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/text"
)

const (
	payloadType = "application/vnd.cncf.notary.payload.v1+json"
	// pluginAttributes begins the attributes by which a signature asks for a plugin of the
	// verifier.
	pluginAttributes = "io.cncf.notary.verificationPlugin"

	// maxChain bounds the certificates of a signature.
	maxChain = 10
	// maxValues bounds the JSON values of an envelope and of its payload, which have some dozens.
	maxValues = 4 << 10
	// maxShown bounds what messages show of a text from a registry, in bytes, and
	// maxShownAttributes the attributes of a name.
	maxShown           = 240
	maxShownAttributes = 12
)

// claim is what a signature says. Its own certificate has verified it, which proves nothing yet:
// anyone can make a certificate.
type claim struct {
	chain     []*x509.Certificate // from the leaf to a self-signed certificate, each issued by the next
	expiry    time.Time           // of the signature; zero: none
	signature []byte              // what a timestamp is about
	timestamp []byte
}

func (c *claim) leaf() *x509.Certificate { return c.chain[0] }

// readClaim reads an envelope about an image (Notary Project specification, "Signature
// Verification"). It verifies that the first certificate of the chain has signed it, that the chain
// is in order, and that the certificates may sign code. The error says why it is no signature, in
// the rest of a sentence that begins with the signature.
func readClaim(mediaType string, data []byte, digest string) (*claim, error) {
	if err := checkChain(mediaType, data); err != nil {
		return nil, err
	}
	envelope, err := signature.ParseEnvelope(mediaType, data)
	if err != nil {
		return nil, fmt.Errorf("is no readable %s envelope: %s", envelopeName(mediaType), shown(err.Error()))
	}
	content, err := envelope.Verify()
	if err != nil {
		return nil, fmt.Errorf("does not verify: %s", shown(err.Error()))
	}
	info := &content.SignerInfo
	if scheme := info.SignedAttributes.SigningScheme; scheme != signature.SigningSchemeX509 {
		return nil, fmt.Errorf("has the signing scheme %s; only %s counts", shown(string(scheme)),
			signature.SigningSchemeX509)
	}
	if err := checkAttributes(info.SignedAttributes.ExtendedAttributes); err != nil {
		return nil, err
	}
	if err := checkUsage(info.CertificateChain[0]); err != nil {
		return nil, err
	}
	if err := checkPayload(&content.Payload, digest); err != nil {
		return nil, err
	}
	return &claim{
		chain: info.CertificateChain, expiry: info.SignedAttributes.Expiry, signature: info.Signature,
		timestamp: info.UnsignedAttributes.TimestampSignature,
	}, nil
}

func envelopeName(mediaType string) string {
	if mediaType == cose.MediaTypeEnvelope {
		return "COSE"
	}
	return "JWS"
}

// checkChain refuses a chain that is too long, or whose keys take too long to verify with, before
// anything is verified with them.
func checkChain(mediaType string, data []byte) error {
	certificates, err := readChain(mediaType, data)
	switch {
	case err != nil:
		return err
	case len(certificates) == 0:
		return errors.New("has no certificate chain")
	case len(certificates) > maxChain:
		return fmt.Errorf("has a chain of %d certificates; at most %d are read", len(certificates), maxChain)
	}
	for _, der := range certificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return errors.New("has a certificate that cannot be read")
		}
		if err := checkSize(cert); err != nil {
			return fmt.Errorf("has a certificate that cannot be used: %w", err)
		}
	}
	return nil
}

// readChain returns the certificates of an envelope.
func readChain(mediaType string, data []byte) ([][]byte, error) {
	unreadable := fmt.Errorf("is no readable %s envelope", envelopeName(mediaType))
	switch mediaType {
	case jws.MediaTypeEnvelope:
		if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
			return nil, unreadable
		}
		var envelope struct {
			Header struct {
				Chain [][]byte `json:"x5c"`
			} `json:"header"`
		}
		if json.Unmarshal(data, &envelope) != nil {
			return nil, unreadable
		}
		return envelope.Header.Chain, nil
	case cose.MediaTypeEnvelope:
		var message gocose.Sign1Message
		if message.UnmarshalCBOR(data) != nil {
			return nil, unreadable
		}
		list, ok := message.Headers.Unprotected[gocose.HeaderLabelX5Chain].([]any)
		if !ok {
			return nil, errors.New("has no certificate chain")
		}
		all := make([][]byte, len(list))
		for i, one := range list {
			if all[i], ok = one.([]byte); !ok {
				return nil, errors.New("has a certificate that cannot be read")
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("has the media type %s, which is no envelope", shown(mediaType))
}

// checkAttributes refuses a signature with a critical attribute that is not understood: it changes
// what the signature means.
func checkAttributes(all []signature.Attribute) error {
	for _, a := range all {
		name := shown(fmt.Sprint(a.Key))
		switch {
		case strings.HasPrefix(name, pluginAttributes):
			return errors.New("must be verified with a plugin of notation, which Countersign has none of")
		case a.Critical:
			return fmt.Errorf("has the critical attribute %q, which is not understood", name)
		}
	}
	return nil
}

// checkUsage refuses a certificate whose extended key usage does not include the signing of code. A
// certificate without that extension may sign anything.
func checkUsage(leaf *x509.Certificate) error {
	for _, usage := range leaf.ExtKeyUsage {
		if usage == x509.ExtKeyUsageCodeSigning {
			return nil
		}
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return nil
	}
	return fmt.Errorf("is by the certificate %q, whose extended key usage does not include code signing",
		shownName(leaf.Subject))
}

// checkPayload refuses a payload that is not about the image.
func checkPayload(payload *signature.Payload, digest string) error {
	if payload.ContentType != payloadType {
		return fmt.Errorf("has a payload of the type %s, which is none of notation", shown(payload.ContentType))
	}
	if n, ok := jsonscan.Count(payload.Content, maxValues); !ok || n == maxValues {
		return errors.New("has a payload that is not JSON, or is too large")
	}
	var p struct {
		Target struct {
			Digest string `json:"digest"`
		} `json:"targetArtifact"`
	}
	if json.Unmarshal(payload.Content, &p) != nil {
		return errors.New("has a payload that names no image")
	}
	if p.Target.Digest != digest {
		return fmt.Errorf("is about another image, %s", shown(p.Target.Digest))
	}
	return nil
}

// shown returns a text from a registry for a message.
func shown(s string) string { return text.Cut(s, maxShown) }
