package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// outOfReach is the highest version that the database of a Notary server can store.
const outOfReach = json.Number("2147483647")

// testFastForward signs the highest possible version with a stolen key. Then the server is restored
// from its backup. The manager refuses the older versions until an administrator makes it forget
// the versions that it has seen.
func (b restarts) testFastForward(t *testing.T, front *faultproxy.Proxy) {
	gun := b.repository(t)
	key, err := notaryserver.NewSigningKey(notaryserver.ECDSA256, gun)
	must(t, err)
	for _, role := range []string{"ci", "qa"} {
		must(t, b.signer.AddDelegation(t.Context(), gun, "targets/"+role, []*notaryserver.SigningKey{key}))
		must(t, b.signer.ImportKey(t.Context(), gun, role, key))
	}
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	before := b.written(t, gun, nil)
	front.BackUp()

	must(t, b.publishAs(t.Context(), gun, "targets/qa", key, outOfReach))
	b.fetchNow(t, gun)
	b.written(t, gun, before)
	front.Set(faultproxy.Fault{Old: true})
	b.denied(t, pod(production, gun+":unsigned"), http.StatusServiceUnavailable,
		"was seen before; the server offers old metadata")
	b.restart(t, func() {})
	b.denied(t, pod(production, gun+":unsigned"), http.StatusServiceUnavailable,
		"was seen before; the server offers old metadata")
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
		v1alpha1.ReasonRollback)

	b.editRoot(t, func(root *v1alpha1.TrustRoot) {
		root.Annotations = map[string]string{v1alpha1.AnnotationForgetVersions: "a version was out of reach"}
	})
	b.forgotten(t)
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
	b.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden)
	b.admitted(t, pod(production, gun+":v1"))
}

// publishAs fetches the file of a role, signs it with another version, and publishes it. The server
// makes the snapshot and the timestamp.
func (b restarts) publishAs(ctx context.Context, gun, role string, key *notaryserver.SigningKey,
	version json.Number) error {
	https := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: b.notary.CA.Pool(), MinVersion: tls.VersionTLS12},
		},
	}
	defer https.CloseIdleConnections()
	base := b.notary.URL + "/v2/" + gun + "/_trust/tuf/"
	raw, err := exchange(ctx, https, http.MethodGet, base+role+".json", "", nil)
	if err != nil {
		return err
	}
	var file struct {
		Signed     map[string]any   `json:"signed"`
		Signatures []map[string]any `json:"signatures"`
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&file); err != nil {
		return err
	}
	file.Signed["version"] = version
	signed, err := json.Marshal(file.Signed) // canonical: sorted, without spaces, and no character needs escaping
	if err != nil {
		return err
	}
	private, ok := key.Signer.(*ecdsa.PrivateKey)
	if !ok || len(file.Signatures) != 1 {
		return fmt.Errorf("%s has %d signatures, or the key is not ECDSA; want one ECDSA signature", role,
			len(file.Signatures))
	}
	digest := sha256.Sum256(signed)
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		return err
	}
	file.Signatures[0]["sig"] = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	raw, err = json.Marshal(file)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("files", role)
	if err != nil {
		return err
	}
	if _, err := part.Write(raw); err != nil {
		return err
	}
	if err := form.Close(); err != nil {
		return err
	}
	_, err = exchange(ctx, https, http.MethodPost, base, form.FormDataContentType(), &body)
	return err
}

// exchange sends a request and returns the body of a response with status 200.
func exchange(ctx context.Context, c *http.Client, method, url, contentType string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, url, response.Status, answer)
	}
	return answer, err
}
