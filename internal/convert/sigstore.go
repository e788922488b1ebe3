package convert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// publicInstance is the trusted root of the public instance of Sigstore, by TUF.
func publicInstance() *v1alpha1.SigstoreTrustedRoot {
	return &v1alpha1.SigstoreTrustedRoot{TUF: &v1alpha1.SigstoreTUF{}}
}

// publicPEM returns PEM of the source as it is written, and refuses private keys.
func (v value) publicPEM(s string) (string, error) {
	if strings.Contains(s, "PRIVATE KEY") {
		return "", v.fault("has a private key: remove it, and treat the key as stolen")
	}
	s = strings.TrimSpace(s)
	if block, _ := pem.Decode([]byte(s)); block == nil {
		return "", v.fault("is no PEM: expected -----BEGIN PUBLIC KEY----- or -----BEGIN CERTIFICATE-----")
	}
	if len(s) >= maxInlinePEM {
		return "", v.fault("is larger than the %d bytes of a key in a TrustRoot", maxInlinePEM)
	}
	return s + "\n", nil
}

// publicKeyPEM is as publicPEM, for one public key.
func (v value) publicKeyPEM(s string) (v1alpha1.PEM, error) {
	text, err := v.publicPEM(s)
	if err != nil {
		return "", err
	}
	_, rest, err := publicKey(text)
	if err != nil {
		return "", v.fault("has no public key that is read: %s", err)
	}
	if strings.TrimSpace(rest) != "" {
		return "", v.fault("has more than one key")
	}
	return v1alpha1.PEM(text), nil
}

// publicKey reads the first PEM block, and returns what follows it.
func publicKey(text string) (der []byte, rest string, err error) {
	block, after := pem.Decode([]byte(text))
	if block == nil {
		return nil, "", errors.New("it is no PEM")
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, "", errors.New("it is no PKIX public key")
	}
	return block.Bytes, string(after), nil
}

// certificates reads every certificate of a bundle.
func certificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("it has a certificate that cannot be read")
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no certificate")
	}
	return all, nil
}

// The parts of a trusted_root.json.
type (
	trustedRoot struct {
		MediaType string       `json:"mediaType"`
		TLogs     []trustedLog `json:"tlogs,omitempty"`
		CAs       []trustedCA  `json:"certificateAuthorities,omitempty"`
		CTLogs    []trustedLog `json:"ctlogs,omitempty"`
		Times     []any        `json:"timestampAuthorities,omitempty"`
	}
	trustedLog struct {
		BaseURL       string            `json:"baseUrl"`
		HashAlgorithm string            `json:"hashAlgorithm"`
		PublicKey     trustedKey        `json:"publicKey"`
		LogID         map[string][]byte `json:"logId"`
	}
	trustedKey struct {
		RawBytes   []byte            `json:"rawBytes"`
		KeyDetails string            `json:"keyDetails"`
		ValidFor   map[string]string `json:"validFor"`
	}
	trustedCA struct {
		Subject   map[string]string              `json:"subject"`
		URI       string                         `json:"uri"`
		CertChain map[string][]map[string][]byte `json:"certChain"`
		ValidFor  map[string]string              `json:"validFor"`
	}
)

// always is since when the parts of a trusted root are in use. The source names no time.
func always() map[string]string { return map[string]string{"start": "2020-01-01T00:00:00Z"} }

// trustedRootJSON returns a trusted_root.json of PEM: certificates of CAs, keys of transparency
// logs and of certificate transparency logs.
func trustedRootJSON(cas, logs, ctLogs []string) ([]byte, error) {
	root := trustedRoot{MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}
	for _, text := range cas {
		authorities, err := authoritiesOf(text)
		if err != nil {
			return nil, err
		}
		root.CAs = append(root.CAs, authorities...)
	}
	for _, text := range logs {
		log, err := logOf(text, "https://rekor.invalid")
		if err != nil {
			return nil, err
		}
		root.TLogs = append(root.TLogs, log)
	}
	for _, text := range ctLogs {
		log, err := logOf(text, "https://ctfe.invalid")
		if err != nil {
			return nil, err
		}
		root.CTLogs = append(root.CTLogs, log)
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing a trusted root: %w", err)
	}
	return append(out, '\n'), nil
}

func logOf(text, url string) (trustedLog, error) {
	der, rest, err := publicKey(text)
	if err != nil {
		return trustedLog{}, err
	}
	if strings.TrimSpace(rest) != "" {
		return trustedLog{}, errors.New("it has more than one key")
	}
	details, err := keyDetails(der)
	if err != nil {
		return trustedLog{}, err
	}
	id := sha256.Sum256(der)
	return trustedLog{
		BaseURL: url, HashAlgorithm: "SHA2_256", LogID: map[string][]byte{"keyId": id[:]},
		PublicKey: trustedKey{RawBytes: der, KeyDetails: details, ValidFor: always()},
	}, nil
}

// keyDetails names the algorithm of a key as protobuf-specs of Sigstore does.
func keyDetails(der []byte) (string, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return "", errors.New("it is no PKIX public key")
	}
	switch key := parsed.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return "PKIX_ECDSA_P256_SHA_256", nil
		case elliptic.P384():
			return "PKIX_ECDSA_P384_SHA_384", nil
		case elliptic.P521():
			return "PKIX_ECDSA_P521_SHA_512", nil
		}
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); bits {
		case 2048, 3072, 4096:
			return fmt.Sprintf("PKIX_RSA_PKCS1V15_%d_SHA256", bits), nil
		}
	case ed25519.PublicKey:
		return "PKIX_ED25519", nil
	}
	return "", errors.New("its key is of a kind that no log has")
}

// authoritiesOf returns a CA for each root of a bundle, with the intermediates that it issued.
func authoritiesOf(text string) ([]trustedCA, error) {
	all, err := certificates(text)
	if err != nil {
		return nil, err
	}
	var roots, intermediates []*x509.Certificate
	for _, c := range all {
		if bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil {
			roots = append(roots, c)
		} else {
			intermediates = append(intermediates, c)
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("it has no self-signed root")
	}
	var cas []trustedCA
	for _, r := range roots {
		issued := 0
		for _, i := range intermediates {
			if i.CheckSignatureFrom(r) == nil {
				issued++
				cas = append(cas, authority(i, r))
			}
		}
		if issued == 0 {
			cas = append(cas, authority(r))
		}
	}
	return cas, nil
}

func authority(chain ...*x509.Certificate) trustedCA {
	var certs []map[string][]byte
	for _, c := range chain {
		certs = append(certs, map[string][]byte{"rawBytes": c.Raw})
	}
	subject := map[string]string{"commonName": chain[0].Subject.CommonName}
	if len(chain[0].Subject.Organization) > 0 {
		subject["organization"] = chain[0].Subject.Organization[0]
	}
	return trustedCA{
		Subject: subject, URI: "https://fulcio.invalid",
		CertChain: map[string][]map[string][]byte{"certificates": certs}, ValidFor: always(),
	}
}

// customRoot returns the trusted root of a TrustRoot, in a new ConfigMap.
func (c *converter) customRoot(at value, name string, cas, logs, ctLogs []string,
) (*v1alpha1.SigstoreTrustedRoot, error) {
	data, err := trustedRootJSON(cas, logs, ctLogs)
	if err != nil {
		return nil, at.fault("cannot become a trusted root: %s", err)
	}
	source := c.objects.configMap(name+"-trusted-root", "trusted_root.json", "", data)
	return &v1alpha1.SigstoreTrustedRoot{From: &source}, nil
}

// unknownRoot returns a trusted root that a person has to fill in.
func (c *converter) unknownRoot(at value, name string) *v1alpha1.SigstoreTrustedRoot {
	source := c.objects.configMap(name+"-trusted-root", "trusted_root.json",
		"the trusted_root.json of this Sigstore instance", nil)
	c.note(at, noteFillRoot, string(source.Name))
	return &v1alpha1.SigstoreTrustedRoot{From: &source}
}

// keysToFill returns keys that a person has to fill in.
func (c *converter) keysToFill(at value, root, role, suffix, what string) v1alpha1.KeySource {
	source := c.objects.configMap(root+"-"+role+"-key", objectNameOf(role)+suffix, what, nil)
	c.note(at, noteFillKey, string(source.Name), source.Key, what)
	return source
}

// anyText matches every text that a certificate has.
const anyText = "(?s:.+)"

// everywhere returns the expression that matches a whole text where the expression of the source
// matches some part of it.
func (c *converter) everywhere(at value, expression string) (string, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if _, bad := regexp.Compile(expression); err != nil || bad != nil {
		return "", at.fault("is no regular expression (RE2)")
	}
	if regexp.MustCompile(expression).MatchString("") { // it matches some part of any text
		c.note(at, noteUnanchored)
		return anyText, nil
	}
	if parsed.Op == syntax.OpConcat && len(parsed.Sub) > 1 &&
		parsed.Sub[0].Op == syntax.OpBeginText && parsed.Sub[len(parsed.Sub)-1].Op == syntax.OpEndText &&
		parsed.Sub[len(parsed.Sub)-1].Flags&syntax.WasDollar != 0 {
		return expression, nil
	}
	wide := "(?s:.*)(?:" + expression + ")(?s:.*)"
	if len(wide) > 1024 {
		return "", at.fault("is longer than the 1,000 characters of an identity")
	}
	c.note(at, noteUnanchored)
	return wide, nil
}

// identity reads an identity: an issuer and a subject, each a text or a regular expression.
func (c *converter) identity(v value, issuer, issuerRegExp, subject, subjectRegExp string,
) (v1alpha1.SigstoreIdentity, error) {
	var id v1alpha1.SigstoreIdentity
	for _, part := range []struct {
		exact, expression     string
		exactTo, expressionTo *string
	}{
		{issuer, issuerRegExp, &id.Issuer, &id.IssuerRegExp}, {subject, subjectRegExp, &id.Subject, &id.SubjectRegExp},
	} {
		exact, _, err := v.text(part.exact)
		if err != nil {
			return id, err
		}
		expression, at, err := v.text(part.expression)
		if err != nil {
			return id, err
		}
		switch {
		case exact != "" && expression != "":
			return id, v.fault("has both %s and %s", part.exact, part.expression)
		case exact != "":
			*part.exactTo = exact
		case expression != "":
			if *part.expressionTo, err = c.everywhere(at, expression); err != nil {
				return id, err
			}
		default:
			*part.expressionTo = anyText
			c.note(v, noteAnyIdentity, part.exact)
		}
	}
	if strings.Contains(id.Issuer+id.IssuerRegExp+id.Subject+id.SubjectRegExp, "PRIVATE KEY") {
		return id, v.fault("has a private key")
	}
	v.finish()
	return id, nil
}
