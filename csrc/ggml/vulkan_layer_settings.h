// What ggml-vulkan names of VK_EXT_layer_settings, which came with Vulkan's headers 1.3.272; Debian
// 12 has 1.3.239. It is sent to the validation layer, which is only asked for by
// GGML_VULKAN_VALIDATE; others skip it.
#pragma once

#ifdef __cplusplus
#include <vulkan/vulkan_core.h>
#if VK_HEADER_VERSION < 272

#include <vector>

namespace vk {

enum class LayerSettingTypeEXT { eBool32 };

struct LayerSettingEXT { // VkLayerSettingEXT
    const char *layer, *name;
    LayerSettingTypeEXT type;
    uint32_t n_values;
    const void *values;
};

struct LayerSettingsCreateInfoEXT { // VkLayerSettingsCreateInfoEXT
    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> &all)
        : n_settings(uint32_t(all.size())), settings(all.data()) {}

    VkStructureType type = VkStructureType(1000496000); // ..._LAYER_SETTINGS_CREATE_INFO_EXT
    const void *next = nullptr;
    uint32_t n_settings;
    const LayerSettingEXT *settings;
};

} // namespace vk

#endif
#endif
