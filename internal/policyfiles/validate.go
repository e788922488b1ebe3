package policyfiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metavalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/config/crd"
)

// customKind validates the objects of one CRD, as the API server does.
type customKind struct {
	kind, version string
	structural    *structuralschema.Structural
	schema        validation.SchemaValidator
	rules         *cel.Validator
}

// Validator validates ImagePolicies and TrustRoots as the API server does. It is safe for
// concurrent use.
type Validator struct {
	kinds map[schema.GroupKind]*customKind
}

// Admit sets the defaults of an object in place, removes its status, and returns an error for each
// thing for which the API server would refuse to create it. Those about a field are a *field.Error.
func (v *Validator) Admit(ctx context.Context, u *unstructured.Unstructured) []error {
	gvk := u.GroupVersionKind()
	k := v.kinds[gvk.GroupKind()]
	if k == nil || k.version != gvk.Version {
		return []error{fmt.Errorf("%.64s has no kind %.64q; the kinds are ImagePolicy and TrustRoot of %s",
			u.GetAPIVersion(), gvk.Kind, v1alpha1.GroupVersion)}
	}
	return k.admit(ctx, u)
}

// NewValidator returns a validator. It compiles the rules of the CRDs, which takes part of a
// second.
func NewValidator() (*Validator, error) {
	files, err := fs.Glob(crd.Files, "*.yaml")
	if err != nil {
		return nil, err
	}
	v := &Validator{kinds: map[schema.GroupKind]*customKind{}}
	for _, file := range files {
		content, err := crd.Files.ReadFile(file)
		if err != nil {
			return nil, err
		}
		definition := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(content, definition); err != nil {
			return nil, fmt.Errorf("reading the CRD %s: %w", file, err)
		}
		k, err := newCustomKind(definition)
		if err != nil {
			return nil, fmt.Errorf("reading the CRD %s: %w", file, err)
		}
		v.kinds[schema.GroupKind{Group: definition.Spec.Group, Kind: k.kind}] = k
	}
	return v, nil
}

func newCustomKind(definition *apiextensionsv1.CustomResourceDefinition) (*customKind, error) {
	if len(definition.Spec.Versions) != 1 || definition.Spec.Versions[0].Schema == nil {
		return nil, errors.New("expected one version with a schema")
	}
	version := definition.Spec.Versions[0]
	internal := &apiextensions.JSONSchemaProps{}
	err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
		version.Schema.OpenAPIV3Schema, internal, nil)
	if err != nil {
		return nil, err
	}
	k := &customKind{kind: definition.Spec.Names.Kind, version: version.Name}
	if k.structural, err = structuralschema.NewStructural(internal); err != nil {
		return nil, err
	}
	if k.schema, _, err = validation.NewSchemaValidator(internal); err != nil {
		return nil, err
	}
	k.rules = cel.NewValidator(k.structural, true, celconfig.PerCallLimit)
	return k, nil
}

// admit sets the defaults of an object, removes its status, and validates it, in the order in which
// the API server does so for a request to create it under strict field validation.
func (k *customKind) admit(ctx context.Context, u *unstructured.Unstructured) []error {
	defaulting.Default(u.Object, k.structural)
	if faults := k.prune(u); len(faults) > 0 {
		return faults
	}
	delete(u.Object, "status")
	u.SetNamespace("")
	meta, faults := k.validateMeta(u)
	if len(faults) == 0 && meta.Name == "" && meta.GenerateName != "" {
		return []error{errors.New("metadata.name: Required value: files need names, and generateName is none")}
	}
	faults = append(faults, validation.ValidateCustomResource(nil, u.Object, k.schema)...)
	faults = append(faults, objectmeta.Validate(ctx, nil, u.Object, k.structural, false)...)
	faults = append(faults, listtype.ValidateListSetsAndMaps(nil, k.structural, u.Object)...)
	if !blocking(faults) {
		broken, _ := k.rules.Validate(ctx, nil, k.structural, u.Object, nil, celconfig.RuntimeCELCostBudget)
		faults = append(faults, broken...)
	}
	errs := make([]error, 0, len(faults))
	for _, fault := range faults {
		errs = append(errs, fault)
	}
	return errs
}

// prune returns an error for each unknown field.
func (k *customKind) prune(u *unstructured.Unstructured) []error {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		ReturnUnknownFieldPaths: true,
	})
	if err != nil {
		return []error{err}
	}
	unknown = append(unknown, pruning.PruneWithOptions(u.Object, k.structural, true,
		structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, k.structural)
	var faults []error
	for _, path := range unknown {
		faults = append(faults, fmt.Errorf("unknown field %q", path))
	}
	if found {
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// validateMeta validates the metadata. A namespace counts as none, as kubectl and the API server
// treat it for a kind without namespaces.
func (k *customKind) validateMeta(u *unstructured.Unstructured) (*metav1.ObjectMeta, field.ErrorList) {
	meta, _, _, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{})
	if err != nil {
		return nil, field.ErrorList{field.Invalid(field.NewPath("metadata"), nil, err.Error())}
	}
	if meta == nil {
		meta = &metav1.ObjectMeta{}
	}
	return meta, metavalidation.ValidateObjectMeta(meta, false, metavalidation.NameIsDNSSubdomain,
		field.NewPath("metadata"))
}

// blocking reports whether faults prevent the check of rules, as in the API server: a rule could
// fail on a value of a wrong type or size.
func blocking(faults field.ErrorList) bool {
	return slices.ContainsFunc(faults, func(fault *field.Error) bool {
		switch fault.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany,
			field.ErrorTypeTypeInvalid:
			return true
		default:
			return false
		}
	})
}
