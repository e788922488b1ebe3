package policy

import (
	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// lookUpTenant looks up a subject as the pull secrets of the namespace read it, and adds that. a is
// the look-up as the trust root reads the subject, without evidence. It returns false if only a
// counts: if the trust root was not refused, or no pull secrets are in use. If both were refused it
// adds both, so that a denial explains both.
//
// The pull secrets have a subject of their own. So no other namespace uses its evidence, and none
// has its faults.
func (e *evaluation) lookUpTenant(s *rootEvidence, k trust.Key, a *lookup) bool {
	if e.namespace == "" {
		return false
	}
	tenant, ok := e.roots.Tenant(k, e.namespace)
	if !ok {
		return false
	}
	own := e.read(tenant)
	switch {
	case own.evidence != nil:
	case own.outdated && !e.refused(tenant, &own): // it was read before, because the trust root was refused
	case e.refused(k, a):
		e.add(s, a)
	default:
		return false
	}
	e.add(s, &own)
	return true
}

// refused reports whether the server refused the credentials for a subject, before or for this
// request.
func (e *evaluation) refused(k trust.Key, a *lookup) bool {
	err := a.fault
	if err == nil {
		err = e.failed[k]
	}
	return err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonUnauthorized
}

// shared returns the subject as the trust root reads it.
func (a *lookup) shared() trust.Subject {
	subject := a.subject
	subject.Tenant = ""
	return subject
}

// Subjects returns the subjects of an image in a namespace whose evidence is worth keeping: as each
// trust root that the image is checked against reads it, and if that was refused, as the pull
// secrets of the namespace read it too. The image of the request is not read.
func (s *Set) Subjects(image imageref.Ref, req Request, roots Roots) []trust.Key {
	e := newEvaluation(image, &req, roots)
	var keys []trust.Key
	for _, root := range s.Consults(image, req.NamespaceLabels) {
		if roots.Usable(root) != nil {
			continue
		}
		found := rootEvidence{root: root}
		e.lookUp(&found, image)
		for i := range found.lookups {
			a := &found.lookups[i]
			keys = append(keys, trust.Key{Root: root, Subject: a.shared()}, trust.Key{Root: root, Subject: a.subject})
		}
	}
	return sorted(keys)
}
