// A pretended accelerator: torch's device PrivateUse1, in the memory of the CPU and with the CPU's kernels.
//
// It refuses tensors of two devices in one operator, as CUDA does, and float64, as Apple's GPUs do. It counts the
// operators that a real device would launch, and reports where the CPU would wait for it.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/copy_native.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace py = pybind11;

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(KIND, 0);
// CUDA takes indices from the CPU and copies them itself, which waits.
const std::set<std::string> TAKES_CPU_INDICES = {"aten::index.Tensor", "aten::_index_put_impl_", "aten::index_put_"};
// The size of the result, or the result itself, is known to the CPU only when the device has computed it.
const std::set<std::string> WAITS = {"aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2",
                                     "aten::unique_consecutive", "aten::repeat_interleave.Tensor", "aten::bincount"};

std::mutex guard;
std::map<std::string, int64_t> operators;
std::map<const char*, size_t> pinned;  // The first byte and the size of each block.
py::object* on_fault = nullptr;  // A Python function of the kind of a fault and the operator's name.

void count(const std::string& name) {
  std::lock_guard<std::mutex> hold(guard);
  ++operators[name];
}

void report(const char* kind, const std::string& name) {
  py::gil_scoped_acquire gil;
  if (!on_fault->is_none()) (*on_fault)(kind, name);
}

void check_dtype(c10::ScalarType dtype, const std::string& name) {
  if (dtype != at::kDouble && dtype != at::kComplexDouble) return;
  report("float64", name);
  TORCH_CHECK_TYPE(false, "Cannot convert a tensor to float64 in ", name, ": the device has none");
}

// ---- Memory, streams and hooks -------------------------------------------------------------------------------------

struct DeviceMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? c10::alloc_cpu(bytes) : nullptr;
    return {data, data, &c10::free_cpu, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
DeviceMemory device_memory;
REGISTER_ALLOCATOR(KIND, &device_memory)

struct PinnedMemory final : c10::Allocator {
  static void release(void* data) {
    {
      std::lock_guard<std::mutex> hold(guard);
      pinned.erase(static_cast<char*>(data));
    }
    c10::free_cpu(data);
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(std::max<size_t>(bytes, 1));
    std::lock_guard<std::mutex> hold(guard);
    pinned[static_cast<char*>(data)] = std::max<size_t>(bytes, 1);
    return {data, data, &release, c10::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
PinnedMemory pinned_memory;

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> hold(guard);
  const auto place = static_cast<const char*>(data);
  auto next = pinned.upper_bound(place);
  if (next == pinned.begin()) return false;
  --next;
  return place < next->first + next->second;
}

struct Streams final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { report("wait", "synchronizeStream"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { report("wait", "synchronizeDevice"); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Streams)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto data = device_memory.allocate(bytes);
    std::memcpy(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// ---- Tensors: made, viewed and copied ------------------------------------------------------------------------------

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  check_dtype(c10::dtype_or_default(dtype), "aten::empty");
  return at::detail::empty_generic(size, &device_memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  check_dtype(c10::dtype_or_default(dtype), "aten::empty_strided");
  return at::detail::empty_strided_generic(size, stride, &device_memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor as_strided(const at::Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride,
                      std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

at::Tensor view(const at::Tensor& self, c10::IntArrayRef size) { return at::native::view(self, size); }

at::Tensor reshape_alias(const at::Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::native::_reshape_alias(self, size, stride);
}

const at::Tensor& resize_(const at::Tensor& self, c10::IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  return at::native::resize_(self, size, format);
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, c10::IntArrayRef size,
                        c10::IntArrayRef stride) {
  return at::cpu::set_(self, storage, offset, size, stride);
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) { return at::native::set_tensor_(self, source); }

at::Tensor& set_only_storage(at::Tensor& self, at::Storage source) { return at::native::set_(self, source); }

// The tensor as the CPU's kernels take it, in the same memory.
at::Tensor as_cpu(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) return tensor;
  const auto options = tensor.options().device(at::kCPU).requires_grad(false);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), [tensor](void*) {}, options);
}

void write(const at::Tensor& to, const at::Tensor& from) {
  auto target = as_cpu(to);
  at::native::copy_(target, as_cpu(from), false);
}

at::Tensor to_device(const at::Tensor& tensor, const std::string& name) {
  if (!tensor.defined()) return tensor;
  check_dtype(tensor.scalar_type(), name);
  auto made = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(DEVICE));
  write(made, tensor);
  return made;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool non_blocking) {
  count("aten::copy_");
  if (to.is_cpu()) report("wait", "copy to the CPU");
  else if (self.is_cpu() && !(non_blocking && is_pinned(self.storage().data()))) report("wait", "copy to the device");
  write(to, self);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  at::native::resize_(to, self.sizes(), std::nullopt);
  write(to, self);
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  report("wait", "aten::_local_scalar_dense");
  return at::native::_local_scalar_dense_cpu(as_cpu(self));
}

// ---- Operators: the CPU's kernels, with what a device would refuse --------------------------------------------------

void refuse_two_devices(const std::string& name) {
  report("two devices", name);
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", DEVICE,
              " and cpu! (in ", name, ")");
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
                       c10::IntArrayRef output_padding, int64_t groups) {
  const bool has_bias = bias && bias->defined();
  if (weight.device() != input.device() || (has_bias && bias->device() != input.device()))
    refuse_two_devices("aten::convolution");
  count("aten::convolution");
  at::NoGradGuard no_grad;
  std::optional<at::Tensor> cpu_bias;
  if (has_bias) cpu_bias = as_cpu(*bias);
  const auto result = at::convolution(as_cpu(input), as_cpu(weight), cpu_bias, stride, padding, dilation, transposed,
                                      output_padding, groups);
  return to_device(result, "aten::convolution");
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> mask) {
  const std::string name = "aten::convolution_backward";
  count(name);
  at::NoGradGuard no_grad;
  const std::vector<int64_t> sizes = {gradient.size(1)};
  at::OptionalIntArrayRef bias_sizes;
  if (mask[2]) bias_sizes = sizes;
  const auto [of_input, of_weight, of_bias] =
      at::convolution_backward(as_cpu(gradient), as_cpu(input), as_cpu(weight), bias_sizes, stride, padding, dilation,
                               transposed, output_padding, groups, mask);
  return {to_device(of_input, name), to_device(of_weight, name), to_device(of_bias, name)};
}

// Return an argument or result with each of its tensors changed.
template <typename Change>
c10::IValue change_tensors(const c10::IValue& value, const Change& change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& each : value.toTensorList()) list.push_back(change(each));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& each : value.toOptionalTensorList()) {
      const std::optional<at::Tensor> one = each;
      list.push_back(one.has_value() ? std::optional<at::Tensor>(change(*one)) : std::nullopt);
    }
    return list;
  }
  return value;
}

void check_arguments(const std::string& name, const std::vector<c10::IValue>& arguments) {
  bool on_device = false, on_cpu = false, waits = WAITS.count(name) > 0;
  for (const auto& argument : arguments)
    change_tensors(argument, [&](const at::Tensor& tensor) {
      if (tensor.defined() && !tensor.is_cpu()) on_device = true;
      // A number of the CPU travels with the operator.
      if (tensor.defined() && tensor.is_cpu() && tensor.dim() > 0) on_cpu = true;
      if (argument.isOptionalTensorList() && tensor.defined() && tensor.scalar_type() == at::kBool) waits = true;
      return tensor;
    });
  if (on_device && on_cpu && !TAKES_CPU_INDICES.count(name)) refuse_two_devices(name);
  if (waits || (on_device && on_cpu)) report("wait", name);
}

// Run an operator by the CPU's kernel. It gets what it only reads in the same memory, and what it writes as a copy, which
// it may resize.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto name = toString(schema.operator_name());
  const size_t size = schema.arguments().size(), first = stack->size() - size;
  const std::vector<c10::IValue> given(stack->begin() + first, stack->end());
  check_arguments(name, given);
  count(name);
  auto is_written = [&](size_t i) {
    const auto alias = schema.arguments()[i].alias_info();
    return alias != nullptr && alias->isWrite();
  };
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < size; ++i) {
    auto& place = (*stack)[first + i];
    if (given[i].isDevice()) place = c10::Device(at::kCPU);
    else place = change_tensors(given[i], [&](const at::Tensor& tensor) {
      auto same = as_cpu(tensor);
      if (!is_written(i) || !tensor.defined() || tensor.is_cpu()) return same;
      auto copied = at::empty_strided(same.sizes(), same.strides(), same.options());
      return at::native::copy_(copied, same, false);
    });
  }
  const std::vector<c10::IValue> used(stack->begin() + first, stack->end());
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  auto put_back = [](const at::Tensor& original, const at::Tensor& copied) {
    if (!original.defined() || original.is_cpu()) return;
    if (original.sizes() != copied.sizes()) at::native::resize_(original, copied.sizes(), std::nullopt);
    write(original, copied);
  };
  for (size_t i = 0; i < size; ++i) {
    if (!is_written(i)) continue;
    if (given[i].isTensor()) put_back(given[i].toTensor(), used[i].toTensor());
    else if (given[i].isTensorList())
      for (size_t j = 0; j < given[i].toTensorList().size(); ++j)
        put_back(given[i].toTensorList().get(j), used[i].toTensorList().get(j));
  }
  // A result is the argument that was written, or new.
  for (size_t r = stack->size() - schema.returns().size(); r < stack->size(); ++r)
    (*stack)[r] = change_tensors((*stack)[r], [&](const at::Tensor& result) {
      for (size_t i = 0; i < size; ++i)
        if (used[i].isTensor() && result.defined() && result.is_same(used[i].toTensor())) return given[i].toTensor();
      return to_device(result, name);
    });
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("resize_", &resize_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_only_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

PYBIND11_MODULE(pretended_device, m) {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  on_fault = new py::object(py::none());
  m.def("operators", [] {
    std::lock_guard<std::mutex> hold(guard);
    return operators;
  });
  m.def("clear_operators", [] {
    std::lock_guard<std::mutex> hold(guard);
    operators.clear();
  });
  m.def("set_on_fault", [](py::object function) { *on_fault = function; });
}
