// Token ids in from a text file, answers out as text: what every program here does around its runtime.
//
// The file holds whole numbers parted by blanks: batch, length, then batch x length token ids, as many of the attention
// mask, and, for models that take them, as many token types.
#pragma once

#include <ATen/ATen.h>

#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

namespace tokens {

inline const char* const kNames[] = {"input_ids", "attention_mask", "token_type_ids"};

// Read the file into int64 tensors of shape (batch, length), by name.
inline std::map<std::string, at::Tensor> read(const std::string& path) {
  std::ifstream file(path);
  int64_t batch = 0, length = 0;
  if (!(file >> batch >> length) || batch < 1 || length < 1 || batch > (1 << 20) / length) {
    throw std::runtime_error(path + ": it must begin with batch and length");
  }
  std::map<std::string, at::Tensor> inputs;
  for (const char* name : kNames) {
    at::Tensor tensor = at::empty({batch, length}, at::kLong);
    int64_t* values = tensor.data_ptr<int64_t>();
    int64_t found = 0;
    while (found < batch * length && file >> values[found]) ++found;
    if (found == 0 && !inputs.empty() && file.eof()) break;
    if (found < batch * length) throw std::runtime_error(path + ": " + name + " is cut or holds something else");
    inputs.emplace(name, tensor);
  }
  if (!inputs.count("attention_mask")) throw std::runtime_error(path + ": there is no attention mask in it");
  return inputs;
}

// Print one output: a line with its shape, then one line for each row of its last axis.
inline void print(const at::Tensor& output) {
  const at::Tensor values = output.to(at::kFloat).contiguous();
  std::cout << "shape";
  for (int64_t size : values.sizes()) std::cout << ' ' << size;
  const int64_t row = values.size(-1);
  std::cout << std::setprecision(9);
  for (int64_t i = 0; i < values.numel(); ++i) {
    std::cout << (i % row == 0 ? '\n' : ' ') << values.data_ptr<float>()[i];
  }
  std::cout << '\n';
}

}  // namespace tokens
