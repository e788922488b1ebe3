package policyfiles

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// maxData is the maximum size of the data in a Secret or a ConfigMap, as in the API server.
const maxData = 1 << 20

// validateCore validates a Namespace, Secret or ConfigMap, and sets what the API server sets. The
// API server's own code for these kinds is not a library, so this has the rules that a file is
// likely to break.
func validateCore(o client.Object) []error {
	var faults field.ErrorList
	check := func(o metav1.Object, namespaced bool, name metavalidation.ValidateNameFunc) {
		if o.GetName() == "" && o.GetGenerateName() != "" {
			faults = append(faults, field.Required(field.NewPath("metadata", "name"),
				"files need names, and generateName is none"))
			return
		}
		faults = append(faults,
			metavalidation.ValidateObjectMetaAccessor(o, namespaced, name, field.NewPath("metadata"))...)
	}
	switch o := o.(type) {
	case *corev1.Namespace:
		check(o, false, metavalidation.ValidateNamespaceName)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[corev1.LabelMetadataName] = o.Name
	case *corev1.Secret:
		check(o, true, metavalidation.NameIsDNSSubdomain)
		faults = append(faults, validateSecret(o)...)
	case *corev1.ConfigMap:
		check(o, true, metavalidation.NameIsDNSSubdomain)
		faults = append(faults, validateConfigMap(o)...)
	}
	errs := make([]error, 0, len(faults))
	for _, fault := range faults {
		errs = append(errs, fault)
	}
	return errs
}

// validateSecret moves stringData to data, and validates it.
func validateSecret(o *corev1.Secret) field.ErrorList {
	if o.Data == nil && len(o.StringData) > 0 {
		o.Data = map[string][]byte{}
	}
	for key, value := range o.StringData {
		o.Data[key] = []byte(value)
	}
	o.StringData = nil
	if o.Type == "" {
		o.Type = corev1.SecretTypeOpaque
	}
	faults, size := validateKeys("data", o.Data), 0
	for _, value := range o.Data {
		size += len(value)
	}
	if size > maxData {
		faults = append(faults, field.TooLong(field.NewPath("data"), "", maxData))
	}
	for kind, key := range map[corev1.SecretType]string{
		corev1.SecretTypeDockerConfigJson: corev1.DockerConfigJsonKey,
		corev1.SecretTypeDockercfg:        corev1.DockerConfigKey,
	} {
		path := field.NewPath("data").Key(key)
		switch value, ok := o.Data[key]; {
		case o.Type != kind:
		case !ok:
			faults = append(faults, field.Required(path, ""))
		case !json.Valid(value):
			faults = append(faults, field.Invalid(path, "<secret contents redacted>", "must be valid JSON"))
		}
	}
	return faults
}

func validateConfigMap(o *corev1.ConfigMap) field.ErrorList {
	faults, size := append(validateKeys("data", o.Data), validateKeys("binaryData", o.BinaryData)...), 0
	for key, value := range o.Data {
		size += len(value)
		if _, both := o.BinaryData[key]; both {
			faults = append(faults, field.Invalid(field.NewPath("data").Key(key), key,
				"duplicate of key present in binaryData"))
		}
	}
	for _, value := range o.BinaryData {
		size += len(value)
	}
	if size > maxData {
		faults = append(faults, field.TooLong(field.NewPath(""), "", maxData))
	}
	return faults
}

func validateKeys[V any](name string, data map[string]V) (faults field.ErrorList) {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		for _, problem := range validation.IsConfigMapKey(key) {
			faults = append(faults, field.Invalid(field.NewPath(name).Key(fmt.Sprintf("%.64s", key)), key, problem))
		}
	}
	return faults
}
