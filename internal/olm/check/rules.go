package check

import (
	"fmt"
	"maps"
	"slices"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// oldest checks that the rules of the CRDs compile on the oldest version of Kubernetes that the
// ClusterServiceVersion requires. In a new rule an API server accepts only the functions of the
// minor version before its own, so that it can be downgraded.
func (b *bundle) oldest() {
	kube, err := version.ParseSemantic(b.csv.Spec.MinKubeVersion)
	if err != nil {
		b.add("csv", "minKubeVersion %q is not a semantic version", b.csv.Spec.MinKubeVersion)
		return
	}
	for name, crd := range b.crds {
		for _, schema := range crd.versions {
			for _, err := range schema.refusals(kube) {
				b.add("kinds", "%s cannot be installed on Kubernetes %s: %v", name, kube, err)
			}
		}
	}
}

// refusals returns the errors that an API server of a version reports for the rules. It caches them
// in the schema, because compiling takes most of the time of a check.
func (s *compiledSchema) refusals(kube *version.Version) []error {
	errs, ok := s.refused[kube.String()]
	if !ok {
		functions := environment.MustBaseEnvSet(version.MajorMinor(kube.Major(), kube.Minor()-1))
		errs = refused(s.structural, functions, "", true)
		s.refused[kube.String()] = errs
	}
	return errs
}

// refused returns the errors of compiling the rules of a schema and of all schemas in it.
func refused(s *structuralschema.Structural, functions *environment.EnvSet, path string, root bool) []error {
	if s == nil {
		return nil
	}
	var errs []error
	if len(s.XValidations) > 0 {
		results, err := cel.Compile(s, model.SchemaDeclType(s, root || s.XEmbeddedResource), celconfig.PerCallLimit,
			functions, cel.NewExpressionsEnvLoader())
		if err != nil {
			errs = append(errs, fmt.Errorf("the rules of %s: %w", path, err))
		}
		for i, r := range results {
			if r.Error != nil {
				errs = append(errs, fmt.Errorf("rule %d of %s: %w", i, path, r.Error))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		field := s.Properties[name]
		errs = append(errs, refused(&field, functions, path+"."+name, false)...)
	}
	errs = append(errs, refused(s.Items, functions, path+"[]", false)...)
	if s.AdditionalProperties != nil {
		errs = append(errs, refused(s.AdditionalProperties.Structural, functions, path+"{}", false)...)
	}
	return errs
}
