package sigstoreinstance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

// Layer is a signature on an image, as a layer of cosign's tag layout.
type Layer struct {
	Payload     []byte
	Annotations map[string]string
}

// SignImage signs a digest with a new key and certificate, a minute after Time, and lists the
// signature in the log of Rekor v1.
func (i *Instance) SignImage(digest string, c Certificate) Layer {
	i.t.Helper()
	private := i.key()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":`+
		`{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	cert := i.Certify(private.Public(), c)
	sig := i.signMessage(private, payload)
	entry := i.EntryV1(&Signed{Signature: sig, Certificate: cert, Message: payload}, i.Time.Add(time.Minute))
	logged := i.json(map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload": map[string]any{
			"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(),
			"logIndex": entry.GetLogIndex(), "logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		},
	})
	return Layer{Payload: payload, Annotations: map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig),
		"dev.sigstore.cosign/certificate":    PEM(cert),
		"dev.sigstore.cosign/bundle":         string(logged),
	}}
}

func (i *Instance) signMessage(private *ecdsa.PrivateKey, message []byte) []byte {
	i.t.Helper()
	signer, err := signature.LoadECDSASigner(private, crypto.SHA256)
	i.check(err)
	sig, err := signer.SignMessage(bytes.NewReader(message))
	i.check(err)
	return sig
}
