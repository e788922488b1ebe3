package main

import "fmt"

// trustRoot returns a TrustRoot for the Notary server that pins the root of trust by its key ID.
func (d *dct) trustRoot() string {
	return fmt.Sprintf(`
apiVersion: countersign.dev/v1alpha1
kind: TrustRoot
metadata:
  name: acme-notary
spec:
  refreshInterval: 30s
  notary:
    server: %s
    caBundle: |
%s
    root:
      keyIDs: [%s]
`, d.notary.URL, indent(string(d.notary.CA.PEM), "      "), d.pin.KeyID)
}

// imagePolicy returns an ImagePolicy that requires roles of the TrustRoot.
func (d *dct) imagePolicy(roles ...string) string {
	return imagePolicy(d.registry.Host, []string{"acme-notary"}, roles...)
}
