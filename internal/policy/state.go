package policy

import "github.com/countersign-dev/countersign/api/v1alpha1"

// Mode returns the mode of the policy.
func (p *Policy) Mode() v1alpha1.PolicyMode { return p.mode }

// Ready returns nil where the policy can be held to: its spec was understood, and every trust root that it names is usable.
// Otherwise it denies its scope, for the reason of the error.
func (p *Policy) Ready(roots Roots) error {
	if p.invalid != nil {
		return p.invalid
	}
	for _, root := range p.roots {
		if err := roots.Usable(root); err != nil {
			return err
		}
	}
	return nil
}
