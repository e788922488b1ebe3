package main

import (
	"fmt"
	"strings"
)

// namespaces is the namespace of the workloads. The policy selects it by the label.
const namespaces = `
apiVersion: v1
kind: Namespace
metadata:
  name: ` + namespace + `
  labels: {env: production}
`

// trustRoot returns a TrustRoot for the Notary server that pins the root of trust by its key ID.
func (e *environment) trustRoot() string {
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
`, e.notary.URL, indent(string(e.notary.CA.PEM), "      "), e.pin.KeyID)
}

// imagePolicy returns an ImagePolicy that requires roles.
func (e *environment) imagePolicy(roles ...string) string {
	return fmt.Sprintf(`
apiVersion: countersign.dev/v1alpha1
kind: ImagePolicy
metadata:
  name: production
spec:
  images: ["%s/acme/**"]
  exceptImages: ["%[1]s/acme/sandbox/*"]
  namespaceSelector: {matchLabels: {env: production}}
  trustRoots: [acme-notary]
  requiredRoles:
%s
`, e.registry.Host, "  - role: "+strings.Join(roles, "\n  - role: "))
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}
